"""Evidence of backups, from backups that PostgreSQL's own programs made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgconform.contract_operations import Backups
from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.recovery.backups import Backup, found
from pgconform.subjects_operations import Source
from pgconform.targets.server import Server, find_binaries, running, start

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def archiving() -> Iterator[Server]:
    """A server that archives its log."""
    with running("15") as first:
        with psycopg.connect(first.dsn(), autocommit=True) as connection:
            connection.execute("alter system set archive_mode = on")
            connection.execute("alter system set archive_command = 'true'")
        first.stop()
        started = start(first.directory, find_binaries("15"))
        try:
            yield started
        finally:
            started.stop(immediate=True)


def listed(kind: str, place: object, database: Database | None = None) -> list[Backup]:
    item = Backups(**({kind: place} if kind != "archiver" else {"archiver": True}))  # type: ignore[arg-type]
    return found(Source(kind, item), database)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(archiving: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one base backup in it."""
    folder = tmp_path_factory.mktemp("bases")
    command = [DEBIAN / "pg_basebackup", "-d", archiving.uri(), "-D", folder / "one", "-X", "none", "--checkpoint=fast"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_is_found_sound_and_dated(base: Path) -> None:
    (backup,) = listed("manifest", str(base))
    assert backup.wrong == ""
    assert timedelta(0) <= backup.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (backup.size or 0) > 10_000_000
    assert listed("manifest", str(base / "one")) == [backup]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: (b / "PG_VERSION").unlink(), "1 of its"),
        (lambda b: (b / "global" / "pg_control").write_bytes(b"short"), "1 of its"),
        (lambda b: _flip(b / "global" / "pg_control"), "pg_verifybackup finds it damaged"),
        (lambda b: _flip(b / "backup_manifest", 400), "manifest"),
        (lambda b: (b / "backup_manifest").write_text("{"), "its manifest cannot be read"),
    ],
    ids=["file gone", "file short", "file changed", "manifest changed", "manifest torn"],
)
def test_a_damaged_base_backup_is_not_sound(base: Path, tmp_path: Path, damage: Any, says: str) -> None:
    shutil.copytree(base / "one", tmp_path / "copy")
    damage(tmp_path / "copy")
    (backup,) = listed("manifest", str(tmp_path / "copy"))
    assert says in backup.wrong


def _flip(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_dumps_are_dated_by_themselves_and_read_to_their_end(references: Server, tmp_path: Path) -> None:
    pattern = str(tmp_path / "*.dump")
    assert listed("dumps", pattern) == []
    for name in ("a.dump", "b.dump"):
        command = [find_binaries("16") / "pg_dump", "-Fc", f"--file={tmp_path / name}", references.uri("victorysync")]
        subprocess.run(command, check=True)
    week = time.time() - 7 * 86_400
    os.utime(tmp_path / "a.dump", (week, week))  # as a copy that keeps times, or a wrong clock, would have it
    first, second = listed("dumps", pattern)
    assert first.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (first.wrong, second.wrong) == ("", "")
    whole = (tmp_path / "b.dump").read_bytes()
    (tmp_path / "b.dump").write_bytes(whole[:-5000])
    (torn,) = (b.wrong for b in listed("dumps", pattern) if b.name == "b.dump")
    assert torn.startswith("pg_restore cannot read it")
    (tmp_path / "b.dump").write_bytes(b"")
    assert [b.wrong for b in listed("dumps", pattern) if b.name == "b.dump"] == ["it is empty"]
    (tmp_path / "b.dump").write_text("-- a dump as SQL")
    assert [b.wrong for b in listed("dumps", pattern) if b.name == "b.dump"] == [""]


def test_the_archiver_tells_what_it_archived_and_that_it_fails(archiving: Server, references: Server) -> None:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        assert listed("archiver", True, Database(connection)) == []  # it archives nothing
    with psycopg.connect(archiving.dsn(), autocommit=True) as connection:
        assert _archived(connection).wrong == ""
        connection.execute("alter system set archive_command = 'false'")
        connection.execute("select pg_catalog.pg_reload_conf()")
        assert "archiving fails" in _archived(connection, "archiving fails").wrong


def _archived(connection: psycopg.Connection[Any], wanted: str = "") -> Backup:
    for _ in range(150):
        connection.execute(
            "select pg_catalog.pg_logical_emit_message(true, 'x', 'y'); select pg_catalog.pg_switch_wal()"
        )
        backups = listed("archiver", True, Database(connection))
        if backups and wanted in backups[0].wrong:
            return backups[0]
        time.sleep(0.2)
    raise AssertionError(f"the archiver never said {wanted!r}: {backups}")


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "document",
    [
        [{"created_at": (NOW - timedelta(hours=2)).isoformat(), "size": 5, "status": "available"}],
        {"region": "eu", "backups": [{"inserted_at": (NOW - timedelta(hours=2)).isoformat(), "status": "COMPLETED"}]},
        [{"time": NOW.timestamp() - 7200, "bytes": "5"}],
        [{"finished_at": f"{NOW - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"}],
    ],
    ids=["list", "object", "numbers", "time alone"],
)
def test_a_providers_listing_is_read_as_it_is(tmp_path: Path, document: object) -> None:
    (tmp_path / "list.json").write_text(json.dumps(document))
    (backup,) = listed("listing", str(tmp_path / "list.json"))
    assert backup.wrong == ""
    assert timedelta(hours=1.9) < backup.age(datetime.now(UTC)) < timedelta(hours=2.1)


_NO_LISTINGS = ["", "{}", "[1]", '[{"size": 1}]', '[{"time": "yesterday"}]', "null", '{"a": 1}', "\xff"]


@pytest.mark.parametrize("text", _NO_LISTINGS, ids=range(len(_NO_LISTINGS)))
def test_a_listing_that_is_none_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotVerified, match="is not a list of backups; wanted a JSON list"):
        listed("listing", str(tmp_path / "list.json"))


@pytest.mark.parametrize("kind", ["manifest", "dumps", "listing"])
def test_a_place_that_is_not_there_is_never_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with pytest.raises(NotVerified, match=rf"backups \({kind}\): .*nowhere.*no such file or directory; correct"):
        listed(kind, str(tmp_path / "nowhere" / "x"))
    with pytest.raises(Nothing, match="NO_SUCH_PLACE is not set"):
        listed(kind, "env:NO_SUCH_PLACE")
    monkeypatch.setenv("NO_SUCH_PLACE", str(tmp_path / "nowhere" / "x"))
    with pytest.raises(NotVerified, match="correct"):
        listed(kind, "env:NO_SUCH_PLACE")
