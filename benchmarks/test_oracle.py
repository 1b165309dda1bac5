"""How fast the exact answers to many searches are found: one pass of COPY and BLAS beside one SQL statement a query.

Three ways read the same table of 3072 dimensions, in turn, so that their ratios hold on a noisy machine: the oracle;
exact SQL, of which only some queries are asked and the time is scaled to all (it is linear in them); and psql's binary
COPY to nowhere, beside the decoder alone. Memory is that of a process that does one pass and nothing else. Clustered
unit vectors are loaded by COPY, with no index, for seven tenants of the reference database's shares.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.statements import statement
from pgconform.targets.server import find_binaries, running
from pgconform.vectors import copied, oracle

from .conftest import Measured
from .processes import apart, interpreter
from .rows import DIMENSION, SHARES, drawn, fill

COUNT, QUERIES = 5, 200
FASTER, DECODED, MEGABYTES = 15.0, 0.85, 150  # times as fast as SQL; of psql's speed; over the interpreter
# Two processes at once need two processors that do nothing else, which the short form cannot ask for.
SHARED = 0.4  # of both speeds
SHORT, LONG = (3_000, 1), (50_000, 6)  # rows; queries that SQL is asked in each round


def test_exact_answers_are_found_faster_than_by_sql_and_within_bounded_memory(measured: Measured) -> None:
    rows, asked = LONG if measured.long else SHORT
    queries = drawn(QUERIES)
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        fill(connection, rows)
        begin(connection, Limits(statement_timeout=600_000))
        database = Database(connection)
        command = "copy (select id::text, 1::bigint, embedding from public.texts) to stdout (format binary)"
        psql = [str(find_psql()), "-X", "-o", "/dev/null", "-d", server.dsn(), "-c", command]

        def turn() -> tuple[float, float, float, float]:
            passed = seconds(lambda: found.append(answered(database, queries)))
            decoded = seconds(lambda: deque(stream(database), 0))
            copying = seconds(lambda: subprocess.run(psql, check=True))
            started = time.perf_counter()
            exact = [by_sql(database, query) for query in queries[:asked]]
            by_hand = (time.perf_counter() - started) / asked * QUERIES
            assert numpy.allclose(found.pop().distances[0, :asked], exact, atol=oracle.SINGLE), "SQL answers otherwise"
            return passed, by_hand, decoded, copying

        found: list[oracle.Nearest] = []
        turns = measured.rounds(turn, 3)
        connection.execute("rollback")
        memory = apart("benchmarks.test_oracle:once", server.dsn()).peak - interpreter()
    share = 1 if measured.long else SHARED
    what = f"oracle, {QUERIES} queries x {rows:,} rows"
    passed, by_hand, decoded, copying = (statistics.median(each) for each in zip(*turns, strict=True))
    size = rows * (4 * DIMENSION + 4) / 1e6
    measured.row(f"{what}: one pass", passed, "s")
    measured.row(f"{what}: SQL, scaled from {asked}", by_hand, "s")
    measured.row(
        f"{what}: faster than SQL", statistics.median(s / o for o, s, _, _ in turns), "x", least=FASTER * share
    )
    measured.row(f"{what}: decoding", size / decoded, "MB/s")
    measured.row(f"{what}: psql's COPY", size / copying, "MB/s")
    speed = statistics.median(copy / decode for _, _, decode, copy in turns)
    measured.row(f"{what}: decoding beside psql", speed, "x", least=DECODED * share)
    measured.row(f"{what}: memory over the interpreter", memory, "MB", MEGABYTES)


def answered(database: Database, queries: oracle.Matrix) -> oracle.Nearest:
    return oracle.nearest(stream(database), queries, COUNT, "cosine", 1 + len(SHARES))


def once(dsn: str) -> None:
    """One pass, for a process of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        begin(connection, Limits(statement_timeout=600_000))
        answered(Database(connection), drawn(QUERIES))


def stream(database: Database) -> Iterator[copied.Block]:
    """The whole table; the groups are everybody and each tenant."""
    tenants = [statement("(r.tenant = {t}::int)", t=tenant) for tenant in range(len(SHARES))]
    asked = copied.question("public.texts", "id", "embedding", [statement("true"), *tenants], statement("true"))
    return copied.blocks(database.copied(asked, "reading"), "vector", DIMENSION, 1 + len(SHARES))


def by_sql(database: Database, query: oracle.Matrix) -> list[float]:
    """The nearest rows' distances to one query, by a sequential scan."""
    asked = statement(
        "select r.embedding operator(public.<=>) {q}::public.vector as d from public.texts as r order by 1"
        " limit {n}::int", q=f"[{','.join(map(str, query.tolist()))}]", n=COUNT,
    )  # fmt: skip
    return [float(d) for (d,) in database.rows(asked, "asking")]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def find_psql() -> Path:
    """psql of the server's own release, else whichever is there."""
    own = find_binaries("16") / "psql"
    return own if own.exists() else Path("psql")
