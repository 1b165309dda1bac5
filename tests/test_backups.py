"""Evidence of backups: what the archiver tells, and a provider; places that cannot be read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgconform.database import Database
from pgconform.model import Nothing, NotVerified
from pgconform.recovery.backup import Backup
from pgconform.targets.server import Server, find_binaries, running, start
from tests.backed import listed


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


def test_the_archiver_tells_what_it_archived_and_that_it_fails(archiving: Server, references: Server) -> None:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        assert listed("archiver", True, Database(connection)) == []  # it archives nothing
    with psycopg.connect(archiving.dsn(), autocommit=True) as connection:
        assert _archived(connection).wrong == ""
        connection.execute("alter system set archive_command = 'false'")
        connection.execute("select pg_catalog.pg_reload_conf()")
        assert "archiving fails" in _archived(connection, "archiving fails").wrong


def test_statistics_that_were_reset_tell_nothing_until_they_are_as_old_as_a_backup_may_be(archiving: Server) -> None:
    with psycopg.connect(archiving.dsn(), autocommit=True) as connection:
        connection.execute("alter system set archive_command = 'true'")
        connection.execute("select pg_catalog.pg_reload_conf()")
        _archived(connection)
        connection.execute("select pg_catalog.pg_stat_reset_shared('archiver')")
        while _told(connection):  # a segment that was full before was archived only now
            connection.execute("select pg_catalog.pg_stat_reset_shared('archiver')")
        with pytest.raises(Nothing, match=r"began 0.0 hours ago, and nothing was archived since; .* last 24 hours"):
            listed("archiver", True, Database(connection))
        assert listed("archiver", True, Database(connection), hours=1e-12) == []
        assert _archived(connection).wrong == ""


def _archived(connection: psycopg.Connection[Any], wanted: str = "") -> Backup:
    for _ in range(150):
        connection.execute(
            "select pg_catalog.pg_logical_emit_message(true, 'x', 'y'); select pg_catalog.pg_switch_wal()"
        )
        backups = _told(connection)
        if backups and wanted in backups[0].wrong:
            return backups[0]
        time.sleep(0.2)
    raise AssertionError(f"the archiver never said {wanted!r}: {backups}")


def _told(connection: psycopg.Connection[Any]) -> list[Backup]:
    """What the archiver tells; nothing where it has not begun."""
    with suppress(Nothing):
        return listed("archiver", True, Database(connection))
    return []


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "document",
    [
        [{"created_at": (NOW - timedelta(hours=2)).isoformat(), "size": 5, "status": "available"}],
        {"region": "eu", "backups": [{"inserted_at": (NOW - timedelta(hours=2)).isoformat(), "status": "COMPLETED"}]},
        [{"time": NOW.timestamp() - 7200, "bytes": "5"}],
        [{"finished_at": f"{NOW - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"}],
        {"warnings": [], "backups": [{"time": NOW.timestamp() - 7200}]},
        {"errors": [{"time": 0, "of": "another"}], "snapshots": [{"time": NOW.timestamp() - 7200}]},
        {"warnings": ["slow"], "regions": [{"name": "eu"}], "kept": [{"time": NOW.timestamp() - 7200}]},
    ],
    ids=["list", "object", "numbers", "time alone", "warnings", "errors", "lists of others"],
)
def test_a_providers_listing_is_read_as_it_is(tmp_path: Path, document: object) -> None:
    (tmp_path / "list.json").write_text(json.dumps(document))
    (backup,) = listed("listing", str(tmp_path / "list.json"))
    assert backup.wrong == ""
    assert timedelta(hours=1.9) < backup.age(datetime.now(UTC)) < timedelta(hours=2.1)


HOURS_AGO = (NOW - timedelta(hours=2)).isoformat()


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([{"created_at": HOURS_AGO, "completed_at": None}], ["it did not complete"]),
        ([{"created_at": HOURS_AGO}, {"completed_at": HOURS_AGO}], ["it did not complete", ""]),
        ([{"created_at": HOURS_AGO, "finished_at": ""}], ["it did not complete"]),
        ([{"completed_at": None, "finished_at": HOURS_AGO}], [""]),
        ([{"created_at": HOURS_AGO, "size_bytes": 0, "status": "COMPLETED"}], ["it is empty"]),
        ([{"created_at": HOURS_AGO, "size_bytes": 1, "status": "COMPLETED"}], [""]),
        ([{"created_at": HOURS_AGO, "size_bytes": None}], [""]),
    ],
    ids=["no end", "an end is not told", "end is empty", "another end", "no byte", "one byte", "size unknown"],
)
def test_a_listed_backup_came_to_its_end_and_is_not_empty(tmp_path: Path, items: object, wrong: list[str]) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"backups": items}))
    assert [b.wrong for b in listed("listing", str(tmp_path / "list.json"))] == wrong


def test_a_list_of_no_backups_is_one(tmp_path: Path) -> None:
    """Its provider has others beside it, which are none."""
    (tmp_path / "list.json").write_text(json.dumps({"errors": [{"time": HOURS_AGO}], "backups": []}))
    assert listed("listing", str(tmp_path / "list.json")) == []


_NO_LISTINGS = [
    "", "{}", "[1]", '[{"size": 1}]', '[{"time": "yesterday"}]', "null", '{"a": 1}', "\xff",
    '[{"time": 1e20}]', '[{"time": 1e999}]', '[{"time": 1e15}]', '[{"time": NaN}]', '[{"time": 1, "size": 1e999}]',
    "[" * 100_000,
]  # fmt: skip


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
