"""The restore drill: what it says of a live target, what it leaves behind, and who is told when it cannot run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgconform.catalog import Catalog
from pgconform.introspect import snapshot
from pgconform.model import NotVerified
from pgconform.recovery import compare, copies, tools
from pgconform.recovery.copies import Copies
from pgconform.targets import server as servers
from pgconform.targets.server import Server
from tests.committing import clone
from tests.test_run import run


@pytest.fixture
def catalog(references: Server) -> Iterator[Catalog]:
    with psycopg.connect(references.dsn("victorysync"), autocommit=True) as connection:
        yield snapshot(connection)


@pytest.fixture(scope="module")
def cache() -> Iterator[Path]:
    """A cache directory of these tests alone, which the account that runs servers can enter."""
    path = Path(tempfile.mkdtemp(prefix="pgconform-test-", dir="/var/tmp"))
    path.chmod(0o711)
    (path / "dumps").mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def places(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Scratch servers and dumps go where nobody else's are, pytest's own files neither."""
    tmp_path_factory.getbasetemp()
    monkeypatch.setenv("PGC_CACHE_DIR", str(cache / "cache"))
    monkeypatch.setenv("TMPDIR", str(cache / "dumps"))
    monkeypatch.setattr(tempfile, "tempdir", str(cache / "dumps"))


def left(cache: Path) -> list[str]:
    """Scratch servers, dumps, and sockets' directories of theirs that are still there, and processes."""
    found = [*(cache / "cache" / "servers").glob("*"), *(cache / "dumps").iterdir()]
    running = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _holds(p, f"{cache}/cache/servers")]
    return sorted(map(str, [*found, *running]))


def _holds(process: Path, text: str) -> bool:
    try:
        return text.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_on_a_live_target_it_runs_when_asked_for_and_leaves_no_trace(
    references: Server, cache: Path, tmp_path: Path
) -> None:
    with clone(references, "victorysync") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        target = [f"--target=live:{dsn}", "--contract=victorysync", "-k", "restore-complete or tables-exist"]
        state = written(connection)
        asked = run(*target, "--drill=restore", out=tmp_path)
        assert asked.returncode == 0, asked.stdout
        assert "passed" in asked.stdout
        assert re.search(r"victorysync: dumped and restored: [\d.]+ seconds, [\d.,]+ MB/s", asked.stdout)
        unasked = run(*target, out=tmp_path)
        assert "not run, unless asked for by --drill=restore: restore-complete" in unasked.stdout
        wrong = run(*target, "--drill=everything", out=tmp_path)
        assert wrong.returncode == 4
        assert (
            "unknown drill 'everything'; use restore, restore:schema=NAME, restore:tenant=KEY or none"
            in wrong.stdout + wrong.stderr
        )
        assert (left(cache), written(connection)) == ([], state)


def written(connection: psycopg.Connection[Any]) -> object:
    """What would tell of a write: changes of tables, and rows."""
    counts = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_catalog.pg_stat_user_tables"
    return connection.execute(counts).fetchone(), connection.execute("select count(*) from pg_class").fetchone()


STEPS = ["size", "need_space", "dump", "create", "restore"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space")])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_interrupted_at_any_step_it_leaves_nothing_behind(
    references: Server, catalog: Catalog, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str, done: bool,
    error: BaseException,
) -> None:  # fmt: skip
    real = getattr(tools, step)

    def fails(*arguments: object) -> None:
        if done:
            real(*arguments)
        raise error

    monkeypatch.setattr(tools, step, fails)
    made = Copies(references.dsn("victorysync"), catalog)
    with pytest.raises(BaseException) as raised, closing(made):
        made.restored()
    assert type(raised.value) is (error if isinstance(error, type) else type(error))
    assert left(cache) == []


def test_interrupted_while_drills_work_it_leaves_nothing_behind(
    references: Server, catalog: Catalog, cache: Path
) -> None:
    made = Copies(references.dsn("victorysync"), catalog)
    with suppress(KeyboardInterrupt), closing(made), made.fresh() as copy, copy.connect():
        copy.scratch.crash()
        assert left(cache) != []
        raise KeyboardInterrupt
    assert left(cache) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing_behind(
    references: Server, cache: Path, tmp_path: Path, signum: int
) -> None:
    arguments = ["--contract=muva", f"--target=live:{references.dsn('muva')}", "--drill=restore", f"--out={tmp_path}/o"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgconform", "run", *arguments, "-k", "restore-complete", "-p", "no:cacheprovider"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not left(cache):
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signum)
    process.communicate(timeout=600)
    assert process.returncode != 0
    assert left(cache) == []


def test_what_a_killed_run_leaves_is_removed_by_the_next_without_a_drill(
    references: Server, cache: Path, tmp_path: Path
) -> None:
    """Nobody but us could read the dump, which holds rows."""
    arguments = ["--contract=muva", f"--target=live:{references.dsn('muva')}", "--drill=restore", f"--out={tmp_path}/o"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgconform", "run", *arguments, "-k", "restore-complete", "-p", "no:cacheprovider"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path, env=os.environ,
    )  # fmt: skip
    while process.poll() is None and not (dumps := list(cache.rglob("dump"))):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert [stat.S_IMODE(dump.parent.stat().st_mode) for dump in dumps] == [0o700]
    (tmp_path / "again").mkdir()
    again = run(*arguments[:2], "-k", "tables-exist", out=tmp_path / "again", PGC_CACHE_DIR=str(cache / "cache"))
    assert again.returncode == 0, again.stdout
    assert not dumps[0].exists()
    while any(_holds(process, str(dumps[0])) for process in Path("/proc").glob("[0-9]*")):
        time.sleep(0.1)  # pg_dump itself ends with its last row
    assert left(cache) == []


def test_too_little_space_is_said_before_anything_is_written(
    references: Server, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "size", lambda _: 10**18)
    with closing(Copies(references.dsn("victorysync"), catalog)) as made:
        for _ in range(2):  # said each time, tried once
            with pytest.raises(NotVerified, match=r"needs about 3000000000\.0 GB in .* set PGC_CACHE_DIR"):
                made.restored()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('pg_dump: error: connection to server at "10.1.2.3", port 5432 failed: FATAL: password for "bob"', "let"),
        ('ERROR:  permission denied for table "secret plans"', "permission denied for table"),
        ("pg_dump: error: query would be affected by row-level security policy for table t", "BYPASSRLS"),
        ("aborting because of server version mismatch", "install a newer PostgreSQL"),
        ('could not execute: ERROR:  extension "postgis" is not available', "PGC_BINDIR"),
        (
            'pg_restore: error: COPY failed for table "t": ERROR: bad value "row content"\nCONTEXT: COPY t, line 1',
            "COPY",
        ),
        ("something else with row content", "ended with status"),
        (
            'ERROR:  unheard of "row content"\nCommand was: CREATE INDEX "an ""index" ON "s p".t USING btree'
            " ((x = 'row content'))",
            'at CREATE INDEX "an ""index": pg_dump ended with status',
        ),
        (
            "ERROR:  unheard of\nCommand was: ALTER TABLE ONLY \"s p\".t\n    ADD CHECK (x = 'row content');",
            'at ALTER TABLE ONLY "s p".t: pg_dump ended with status',
        ),
        (
            "ERROR:  unheard of\nCommand was: COMMENT ON TABLE t IS 'row content'",
            "while dumping the database: pg_dump ended with status",
        ),
        ("ERROR:  unheard of\nCommand was: SELECT setval('row content')", "pg_dump ended with status"),
        ('ERROR:  relation "t" already exists\nCommand was: row content', 'relation "t" already exists; '),
        ('ERROR:  check constraint "c" of relation "t" is violated by some row\nrow content', '"c" of relation "t" is'),
        ('ERROR:  column "c" of relation "t" contains null values\nDETAIL: row content', "contains null values; "),
        (
            'ERROR:  there is no unique constraint matching given keys for referenced table "t"\nrow content',
            'no unique constraint matching given keys for referenced table "t"; ',
        ),
    ],
)
def test_what_the_programs_say_holds_no_row_host_or_user(tmp_path: Path, said: str, told: str) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(NotVerified) as refused:
        tools.dump(tmp_path, "postgresql:///?host=/nowhere", tmp_path / "dump")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    for secret in ("10.1.2.3", "bob", "row content", "nowhere"):
        assert secret not in str(refused.value)


def test_a_role_that_row_security_binds_is_told_what_it_lacks(references: Server, catalog: Catalog) -> None:
    with psycopg.connect(references.dsn("victorysync"), autocommit=True) as connection:
        connection.execute("create role dumper login; grant pg_read_all_data to dumper")
    poor = references.dsn("victorysync").replace("user='postgres'", "user='dumper'")
    with closing(Copies(poor, catalog)) as made, pytest.raises(NotVerified, match="connect as a role with BYPASSRLS"):
        made.restored()


@pytest.mark.parametrize("version", ["18", "15"])
def test_other_versions_are_restored_too(version: str) -> None:
    from pgconform.targets.embedded import server

    with server(["victorysync"], version) as started:
        with psycopg.connect(started.dsn("victorysync"), autocommit=True) as connection:
            seen = snapshot(connection)
        with closing(Copies(started.dsn("victorysync"), seen)) as made, made.restored().copy.connect() as connection:
            assert compare.catalogues(seen, snapshot(connection)) == []


def test_a_server_newer_than_all_programs_is_refused_in_a_line(references: Server, catalog: Catalog) -> None:
    import msgspec

    newer = msgspec.structs.replace(catalog, server=msgspec.structs.replace(catalog.server, version=190_000))
    with (
        closing(Copies(references.dsn("victorysync"), newer)) as made,
        pytest.raises(NotVerified, match="PostgreSQL 19"),
    ):
        made.restored()


def test_the_scratch_servers_versions_are_those_of_the_wheel() -> None:
    assert set(copies.SERVERS) == {int(version) for version in servers._WHEEL}


@pytest.mark.parametrize(
    "line, left",
    [
        (b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=22119544);\n", b""),
        (
            b'ALTER TABLE ONLY "S x"."T (1)" ALTER COLUMN "a, b" SET (pg_attver=7, n_distinct=5);\n',
            b'ALTER TABLE ONLY "S x"."T (1)" ALTER COLUMN "a, b" SET (n_distinct=5);\n',
        ),
        (
            b"ALTER FOREIGN TABLE ONLY f.t ALTER COLUMN a SET (n_distinct=5, pg_attver=7, n_distinct_inherited=2);\n",
            b"ALTER FOREIGN TABLE ONLY f.t ALTER COLUMN a SET (n_distinct=5, n_distinct_inherited=2);\n",
        ),
        (b"ALTER TABLE ONLY t ALTER COLUMN pg_attver SET (n_distinct=5);\n", None),
        (b"    select 'SET (pg_attver=1);'\n", None),
        (b"", None),
    ],
)
def test_the_number_of_a_columns_definition_is_left_out_of_a_restore(line: bytes, left: bytes | None) -> None:
    assert tools.without_versions(line) == (line if left is None else left)
