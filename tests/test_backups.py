"""Evidence of backups, from backups that PostgreSQL's own programs made."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
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
from pgconform.recovery import backups
from pgconform.recovery.backups import Backup, found, verified
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
    assert (backup.wrong, checked(base).wrong) == ("", "")
    assert timedelta(0) <= backup.age(datetime.now(UTC)) < timedelta(minutes=5)
    assert (backup.size or 0) > 10_000_000
    assert listed("manifest", str(base / "one")) == [backup]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: (b / "PG_VERSION").unlink(), "1 of its"),
        (lambda b: (b / "global" / "pg_control").write_bytes(b"short"), "1 of its"),
        (lambda b: _flip(b / "global" / "pg_control"), "pg_verifybackup finds it damaged"),
        (lambda b: _flip(b / "backup_manifest", -20), "manifest"),
        (lambda b: (b / "backup_manifest").write_text("{"), "its manifest cannot be read"),
    ],
    ids=["file gone", "file short", "file changed", "manifest changed", "manifest torn"],
)
def test_a_damaged_base_backup_is_not_sound(base: Path, tmp_path: Path, damage: Any, says: str) -> None:
    shutil.copytree(base / "one", tmp_path / "copy")
    damage(tmp_path / "copy")
    assert says in checked(tmp_path / "copy").wrong


def checked(place: Path) -> Backup:
    """The newest base backup, read in full."""
    return verified(Source("manifest", Backups(manifest=str(place))), listed("manifest", str(place))[-1])


def test_a_base_backup_is_dated_in_any_zone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label tells the server's time, in words that mean another time to us."""
    shutil.copytree(base / "one", tmp_path / "copy")
    label = tmp_path / "copy" / "backup_label"
    label.write_text(re.sub(r"^(START TIME: .*) \S+$", r"\1 CST", label.read_text(), flags=re.M))
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    try:
        (backup,) = listed("manifest", str(tmp_path))
        assert abs(backup.age(datetime.now(UTC))) < timedelta(minutes=10)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_program_that_is_not_there_verifies_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGC_BINDIR", str(base))
    with pytest.raises(NotVerified, match="pg_verifybackup of PostgreSQL 15, which reads them, is not; install"):
        checked(base)


def test_base_backups_are_verified_once_and_only_the_last_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "_verified", lambda _: pytest.fail("found() needs no program"))
    assert listed("manifest", str(base))[0].wrong == ""


@pytest.fixture(scope="module", params=["-Ft", "-Ftz"])
def archived(archiving: Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("tar") / "one"
    options = ["-Ft", *(["-z"] if request.param.endswith("z") else []), "-X", "none", "--checkpoint=fast"]
    command = [DEBIAN / "pg_basebackup", "-d", archiving.uri(), "-D", folder, *options]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_base_backup_may_be_an_archive(archived: Path, tmp_path: Path) -> None:
    assert checked(archived).wrong == ""
    copy = tmp_path / "copy"
    shutil.copytree(archived, copy)
    (tar,) = copy.glob("base.tar*")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    assert "of another size" in checked(copy).wrong or "cannot be read to its end" in checked(copy).wrong
    tar.rename(copy / "base.tar.zst")
    assert "compressed in a way" in checked(copy).wrong
    (copy / "base.tar.zst").unlink()
    assert "files are missing" in checked(copy).wrong


def test_a_dump_may_be_a_directory(references: Server, tmp_path: Path) -> None:
    folder = tmp_path / "one.dir"
    command = [find_binaries("16") / "pg_dump", "-Fd", f"--file={folder}", references.uri("victorysync")]
    subprocess.run(command, check=True)
    (backup,) = listed("dumps", str(tmp_path / "*.dir"))
    assert (backup.wrong, backup.size) == ("", sum(p.stat().st_size for p in folder.iterdir()))
    max(folder.glob("*.dat*"), key=lambda p: p.stat().st_size if p.name != "toc.dat" else 0).unlink()
    assert [b.wrong for b in listed("dumps", str(tmp_path / "*.dir"))] == ["pg_restore cannot read it to its end"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_as_sql_says_that_it_came_to_its_end(references: Server, tmp_path: Path, packed: bool) -> None:
    command = [find_binaries("16") / "pg_dump", references.uri("victorysync")]
    text = subprocess.run(command, check=True, capture_output=True).stdout
    name = tmp_path / ("a.sql.gz" if packed else "a.sql")
    for script, wrong in ((text, ""), (text[:-5000], "pg_dump did not come to its end")):
        name.write_bytes(gzip.compress(script, 1) if packed else script)
        assert [b.wrong for b in listed("dumps", str(tmp_path / "*"))] == [wrong]
    if packed:
        name.write_bytes(name.read_bytes()[:-5000])
        assert [b.wrong for b in listed("dumps", str(tmp_path / "*"))] == ["it cannot be read to its end"]


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
    assert [b.wrong for b in listed("dumps", pattern) if b.name == "b.dump"] == [NO_DUMP]


NO_DUMP = "it is no dump: neither an archive nor a script of pg_dump"
_NO_DUMPS = {
    "zeros": (bytes(100_000), NO_DUMP),
    "text": (b"the disk is full\n" * 1000, NO_DUMP),
    "packed text": (gzip.compress(b"the disk is full\n"), NO_DUMP),
    "packed by xz": (lzma.compress(b"the disk is full\n"), NO_DUMP),
    "packed by bzip2, torn": (bz2.compress(os.urandom(5000))[:-100], "it cannot be read to its end"),
    "another tar": (bytes(257) + b"ustar\x0000" + bytes(10_000), "pg_restore cannot read it"),
}


@pytest.mark.parametrize("content", _NO_DUMPS.values(), ids=_NO_DUMPS)
def test_a_file_that_is_no_dump_is_not_sound(tmp_path: Path, content: tuple[bytes, str]) -> None:
    """Neither as the last one, which is read to its end, nor as an older one."""
    for name in ("a.dump", "b.dump"):
        (tmp_path / name).write_bytes(content[0])
    os.utime(tmp_path / "a.dump", (time.time() - 3600,) * 2)
    assert [b.wrong for b in listed("dumps", str(tmp_path / "*.dump"))] == [content[1]] * 2


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bz2", "xz"]
)
def test_a_dump_as_sql_may_be_packed_and_have_lost_its_comments(tmp_path: Path, pack: Any) -> None:
    dump = b"--\n-- PostgreSQL database dump\n--\nselect 1;\n--\n-- PostgreSQL database dump complete\n--\n"
    bare = b"\n\nSET statement_timeout = 0;\nselect 1;\nRESET ALL;\n"
    for script, wrong in ((dump, ""), (dump[:60], CUT), (bare, ""), (bare[:40], CUT)):
        (tmp_path / "a.dump").write_bytes(pack(script))
        assert _read(tmp_path / "a.dump").wrong == wrong


CUT = "pg_dump did not come to its end"


def _read(path: Path) -> Backup:
    """The last one there, with what reading all of it tells."""
    return verified(Source("dumps", Backups(dumps=str(path))), listed("dumps", str(path))[-1])


_SEALED = {
    "zstd": b"\x28\xb5\x2f\xfd\x24",
    "lz4": b"\x04\x22\x4d\x18\x64",
    "gpg": bytes.fromhex("8c0d0409030a"),
    "gpg to a key": bytes.fromhex("85018c03d1f1"),
    "gpg, armoured": b"-----BEGIN PGP MESSAGE-----\n",
    "age": b"age-encryption.org/v1\n",
    "openssl": b"Salted__12345678",
    "an archive that was packed once more, by gzip": gzip.compress(b"PGDMP" + bytes(300)),
}


@pytest.mark.parametrize("name", _SEALED)
def test_what_nothing_here_can_look_into_is_not_verified(tmp_path: Path, name: str) -> None:
    """It has an age and a size all the same."""
    content = _SEALED[name]
    (tmp_path / "a.dump").write_bytes(content if content[:2] == b"\x1f\x8b" else content + os.urandom(500))
    (backup,) = listed("dumps", str(tmp_path / "a.dump"))
    assert (backup.wrong, (backup.size or 0) > 0) == ("", True)
    with pytest.raises(
        NotVerified, match=rf"\(a.dump\) cannot be read: it is .*{name.partition(' to ')[0].split(',')[0]}"
    ):
        _read(tmp_path / "a.dump")


def test_a_dump_may_be_a_tar(references: Server, tmp_path: Path) -> None:
    command = [find_binaries("16") / "pg_dump", "-Ft", f"--file={tmp_path / 'a.tar'}", references.uri("victorysync")]
    subprocess.run(command, check=True)
    assert _read(tmp_path / "a.tar").wrong == ""
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:100_000])
    assert _read(tmp_path / "a.tar").wrong.startswith("pg_restore cannot read it")


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
