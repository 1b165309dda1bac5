"""How long the restore drill takes beside plain pg_dump, pg_restore and one sequential scan of both sides.

The plain way and the drill are run in turn, on the MUVA reference database with its rows multiplied until it has the
size that is wanted: as it is, in the long form 1 GB. Memory is the peak of a process that does the drill, and of its
programs.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psycopg
from pgconform.fixtures.databases import build

from pgconform.contract_file import load, resolve
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.recovery import compare, restored, tools
from pgconform.recovery.copies import Copies
from pgconform.targets.server import Server, find_binaries, running

from .conftest import Measured
from .processes import apart

LIMIT, MEMORY_MB = 1.25, 300
NAME = "muva"
SHORT, LONG, GB_AT_ONE = 0.013, 1.0, 0.013  # GB; of the reference database as it is


def plain(server: Server, tables: list[str]) -> float:
    """Seconds of pg_dump and pg_restore as one types them, and of a sequential scan of all tables on both sides."""
    binaries = find_binaries("16")
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(server.dsn(), autocommit=True) as admin:
        file = Path(folder) / "dump"
        admin.execute("create database plain template template0")
        started = time.monotonic()
        dump: list[str | Path] = [binaries / "pg_dump", "--format=custom", f"--file={file}", server.uri(NAME)]
        subprocess.run(dump, check=True)
        restore: list[str | Path] = [binaries / "pg_restore", "--jobs=2", f"--dbname={server.uri('plain')}", file]
        subprocess.run(restore, check=True)
        for name in (NAME, "plain"):
            with psycopg.connect(server.dsn(name)) as connection:
                for table in tables:
                    connection.execute(f"select pg_catalog.count(r.*) from {table} as r".encode())
        seconds = time.monotonic() - started
        admin.execute("drop database plain")
    return seconds


def drill(dsn: str) -> tuple[float, float]:
    """Seconds of the drill, and of the dump and restore in it; for a process of its own."""
    contract = load(resolve(NAME))
    with psycopg.connect(dsn, autocommit=True) as connection:
        read_text(connection)
        begin(connection, contract.limits)
        catalog = snapshot(connection)
        started = time.monotonic()
        with closing(Copies(dsn, catalog)) as copies:
            before = compare.sequences(Database(connection), catalog)
            made = copies.restored()
            found = list(restored.compared(made.copy, catalog, contract, Database(connection), before))
            seconds = time.monotonic() - started
    assert found == [], found
    return seconds, made.seconds


def test_the_restore_drill_takes_little_longer_than_dump_and_restore(measured: Measured) -> None:
    with running() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"create database {NAME}".encode())
            admin.execute("alter system set maintenance_work_mem = '1GB'")  # as the scratch server has
            admin.execute("select pg_catalog.pg_reload_conf()")
        with psycopg.connect(server.dsn(NAME)) as connection:
            build(connection, NAME, scale=max((LONG if measured.long else SHORT) / GB_AT_ONE, 1.0))
        with psycopg.connect(server.dsn(NAME), autocommit=True) as connection:
            tables = [str(table) for table in snapshot(connection).tables if table.kind == "table"]
        size = tools.size(server.dsn(NAME))
        drill(server.dsn(NAME))  # prepares the scratch server's empty cluster
        turns = measured.rounds(
            lambda: (plain(server, tables), apart("benchmarks.test_restore:drill", server.dsn(NAME))), 1
        )
    what = f"restore drill of {size / 1e6:,.0f} MB"
    measured.row(f"{what}: plain dump, restore, scans", statistics.median(theirs for theirs, _ in turns), "s")
    measured.row(f"{what}: the drill", statistics.median(ours.told[0] for _, ours in turns), "s")
    measured.row(f"{what}: dump and restore", statistics.median(size / 1e6 / ours.told[1] for _, ours in turns), "MB/s")
    measured.row(f"{what}: drill beside plain", statistics.median(o.told[0] / t for t, o in turns), "x", LIMIT)
    measured.row(f"{what}: memory", max(ours.peak for _, ours in turns), "MB", MEMORY_MB)
    measured.row(f"{what}: memory of the largest program", max(ours.children for _, ours in turns), "MB", MEMORY_MB)
