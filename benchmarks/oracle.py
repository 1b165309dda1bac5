"""How fast the exact answers to many searches are found: one pass of COPY and BLAS beside one SQL statement a query.

    python -m benchmarks.oracle [--rows=50000] [--queries=200] [--sql=6]

Three ways read the same table of 3072 dimensions, in turn, so that their ratios hold on a noisy machine: the oracle;
exact SQL, of which only ``--sql`` queries are asked and the time is scaled to all (it is linear in them); and psql's
binary COPY to nowhere, beside the decoder alone. Memory is what the process has more than before, at most. Clustered
unit vectors are loaded by COPY, with no index, for seven tenants of the reference database's shares.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.statements import statement
from pgconform.targets.server import find_binaries, running
from pgconform.vectors import copied, oracle

DIMENSION, CLUSTERS, COUNT = 3072, 12, 5
SHARES = (0.55, 0.19, 0.11, 0.07, 0.05, 0.02, 0.01)
FASTER, DECODED, MEGABYTES = 15.0, 0.85, 150  # times as fast as SQL; of psql's speed; over the interpreter
FULL = (50_000, 200)  # rows and queries that FASTER is promised for
_TABLE = "create extension vector; create table texts (id bigint primary key, tenant int, embedding vector(3072))"


def rows(count: int) -> Iterator[bytes]:
    """The table in binary COPY: unit vectors around some centres, alike in every run."""
    draw = numpy.random.default_rng(1)
    centres = draw.normal(size=(CLUSTERS, DIMENSION)).astype(numpy.float32)
    tenants = draw.choice(len(SHARES), count, p=SHARES)
    head = numpy.array([DIMENSION, 0], ">i2").tobytes()
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for n in range(count):
        vector = centres[n % CLUSTERS] + draw.standard_normal(DIMENSION, numpy.float32)
        vector /= numpy.linalg.norm(vector)
        body = head + vector.astype(">f4").tobytes()
        yield b"".join((
            b"\0\3\0\0\0\x08", n.to_bytes(8), b"\0\0\0\4", int(tenants[n]).to_bytes(4), len(body).to_bytes(4), body,
        ))  # fmt: skip
    yield b"\xff\xff"


def fill(connection: psycopg.Connection[Any], count: int) -> None:
    connection.execute(_TABLE)
    with connection.cursor() as cursor, cursor.copy("copy texts from stdin (format binary)") as copy:
        for piece in rows(count):
            copy.write(piece)
    connection.execute("vacuum analyze texts")


def drawn(count: int) -> oracle.Matrix:
    """Queries that no row has, drawn as the rows are."""
    draw = numpy.random.default_rng(1)
    centres = draw.normal(size=(CLUSTERS, DIMENSION))
    noise = numpy.random.default_rng(2).normal(size=(count, DIMENSION))
    queries = centres[numpy.arange(count) % CLUSTERS] + noise
    queries /= numpy.linalg.norm(queries, axis=1, keepdims=True)
    return numpy.asarray(queries, numpy.float32)


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


def peak(status: str) -> float:
    """Most memory that a process ever had, by its /proc/PID/status; MB. getrusage() counts what it was forked from."""
    return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def own_peak() -> float:
    return peak(Path("/proc/self/status").read_text(encoding="ascii"))


def main() -> int:
    """Print the figures beside their limits; returns 1 where one is not kept, or the answers differ from SQL's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=FULL[0])
    parser.add_argument("--queries", type=int, default=FULL[1])
    parser.add_argument("--sql", type=int, default=6, metavar="N", help="queries asked by SQL each round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bare = "print(open('/proc/self/status').read())"
    interpreter = peak(subprocess.run([sys.executable, "-c", bare], check=True, capture_output=True, text=True).stdout)
    queries = drawn(given.queries)
    times: dict[str, list[float]] = {"oracle": [], "sql": [], "decode": [], "psql": []}
    wrong, memory = 0, 0.0
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        fill(connection, given.rows)
        begin(connection, Limits(statement_timeout=600_000))
        database = Database(connection)
        command = "copy (select id::text, 1::bigint, embedding from public.texts) to stdout (format binary)"
        psql = [str(find_psql()), "-X", "-o", "/dev/null", "-d", server.dsn(), "-c", command]
        for _ in range(given.rounds):
            started = time.perf_counter()
            found = oracle.nearest(stream(database), queries, COUNT, "cosine", 1 + len(SHARES))
            times["oracle"].append(time.perf_counter() - started)
            memory = memory or own_peak() - interpreter
            times["decode"].append(seconds(lambda: deque(stream(database), 0)))
            times["psql"].append(seconds(lambda: subprocess.run(psql, check=True)))
            started = time.perf_counter()
            exact = [by_sql(database, query) for query in queries[: given.sql]]
            times["sql"].append((time.perf_counter() - started) / len(exact) * given.queries)
            wrong += not numpy.allclose(found.distances[0, : len(exact)], exact, atol=oracle.SINGLE)
        connection.execute("rollback")
    return report(given, times, memory, wrong)


def find_psql() -> Path:
    """psql of the server's own release, else whichever is there."""
    own = find_binaries("16") / "psql"
    return own if own.exists() else Path("psql")


def report(given: argparse.Namespace, times: dict[str, list[float]], memory: float, wrong: int) -> int:
    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    faster, speed = ratio("sql", "oracle"), ratio("psql", "decode")
    size = given.rows * (4 * DIMENSION + 4) / 1e6
    once = {name: statistics.median(each) for name, each in times.items()}
    print(f"{given.queries} queries x {given.rows} rows of {DIMENSION} dimensions, medians of {given.rounds} rounds")
    print(f"  oracle {once['oracle']:.2f} s for everybody and {len(SHARES)} tenants at once")
    print(
        f"  SQL    {once['sql']:.1f} s for everybody, scaled from {given.sql} queries: {faster:.1f} times the oracle's"
    )
    print(f"  decode {size / once['decode']:.0f} MB/s, psql {size / once['psql']:.0f} MB/s: {speed:.0%}")
    print(f"  memory {memory:.0f} MB over the interpreter; {wrong} rounds with other answers than SQL's")
    full = (given.rows, given.queries) >= FULL
    print(f"limits: {MEGABYTES} MB; of {FULL[1]} queries x {FULL[0]} rows also {FASTER:g} times and {DECODED:.0%}")
    return int(bool(wrong) or memory > MEGABYTES or (full and (faster < FASTER or speed < DECODED)))


if __name__ == "__main__":
    raise SystemExit(main())
