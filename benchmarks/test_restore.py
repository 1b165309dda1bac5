"""How long the restore drill takes beside plain pg_dump, pg_restore and one sequential scan of both sides.

    python -m benchmarks.restore [--gb=0.05] [--rounds=1]

The plain way and the drill are run in turn, on the MUVA reference database with its rows multiplied until it has the
size that was asked for; the long form has --gb=1. Memory is the peak of our own process and of its programs.
"""

from __future__ import annotations

import argparse
import resource
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

LIMIT, MEMORY_MB = 1.25, 300
NAME = "muva"


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


def drill(server: Server) -> tuple[float, float]:
    """Seconds of the drill, and of the dump and restore in it."""
    contract = load(resolve(NAME))
    with psycopg.connect(server.dsn(NAME), autocommit=True) as connection:
        read_text(connection)
        begin(connection, contract.limits)
        catalog = snapshot(connection)
        started = time.monotonic()
        with closing(Copies(server.dsn(NAME), catalog)) as copies:
            before = compare.sequences(Database(connection), catalog)
            made = copies.restored()
            found = list(restored.compared(made.copy, catalog, contract, Database(connection), before))
            seconds = time.monotonic() - started
    assert found == [], found
    return seconds, made.seconds


def main() -> int:
    """Print the figures; returns 1 when the ratio or the memory exceeds its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    with running() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"create database {NAME}".encode())
            admin.execute("alter system set maintenance_work_mem = '1GB'")  # as the scratch server has
            admin.execute("select pg_catalog.pg_reload_conf()")
        started = time.monotonic()
        with psycopg.connect(server.dsn(NAME)) as connection:
            build(connection, NAME, scale=max(asked.gb / 0.013, 1.0))
        with psycopg.connect(server.dsn(NAME), autocommit=True) as connection:
            tables = [str(table) for table in snapshot(connection).tables if table.kind == "table"]
        size = tools.size(server.dsn(NAME))
        print(f"{size / 1e9:.3f} GB built in {time.monotonic() - started:.0f} s", flush=True)
        drill(server)  # prepares the scratch server's empty cluster
        pairs = [(plain(server, tables), drill(server)) for _ in range(asked.rounds)]
    ratio = statistics.median(ours / theirs for theirs, (ours, _) in pairs)
    for theirs, (ours, restoring) in pairs:
        print(
            f"plain {theirs:.1f} s; drill {ours:.1f} s, {restoring:.1f} s of them dump and restore: {ours / theirs:.2f}"
        )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{size / 1e6 / pairs[-1][1][1]:.1f} MB/s; ratio {ratio:.2f} (limit {LIMIT});"
          f" peak memory {own:.0f} MB, of the largest program {children:.0f} MB (limit {MEMORY_MB})")  # fmt: skip
    return int(ratio > LIMIT or max(own, children) > MEMORY_MB)


if __name__ == "__main__":
    raise SystemExit(main())
