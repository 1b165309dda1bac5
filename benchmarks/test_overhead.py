"""What the search benchmark itself adds to a search, beside pgbench on the same prepared statement.

Both ask for the nearest of a tenant's texts of 3072 dimensions as the same role under row security, on one connection
each, many searches in a transaction, in turn. The query vector is looked up by its number, so that neither pays for
sending it. That both have the same plan is told by what the server counts: scans of the index and of the table, and
pages, for each search.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import psycopg

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.identities import Identity
from pgconform.statements import statement
from pgconform.targets.server import find_binaries, running
from pgconform.vectors.asking import asking

from .conftest import Measured
from .rows import DIMENSION, drawn, fill

LIMIT = 1.2  # times pgbench's median
SAME = 1.05  # times what the server counts of a search by pgbench
TOGETHER = 20  # searches of a transaction
ROLE, TENANT = "caller", "0"
_SEARCH = (
    f"select r.id::text, (r.embedding::halfvec({DIMENSION}) <=> q.embedding::halfvec({DIMENSION}))::float8"
    " from public.queries as q cross join lateral (select t.id, t.embedding from public.texts as t"
    f" order by t.embedding::halfvec({DIMENSION}) <=> q.embedding::halfvec({DIMENSION}) limit 10) as r"
    " where q.n = {n}"
)
_MAKE = f"""
create role {ROLE} nologin;
create table queries (n int primary key, embedding vector({DIMENSION}));
grant select on texts, queries to {ROLE};
create index texts_idx on texts using ivfflat ((embedding::halfvec({DIMENSION})) halfvec_cosine_ops) with (lists = 10);
alter table texts enable row level security;
create policy own on texts for select to {ROLE} using (tenant = current_setting('app.tenant', true)::int);
"""
# Pages of the table, what is stored beside it and its indexes; for each search.
_COUNTED = """
select pg_stat_get_numscans('texts_idx'::regclass)::float8, pg_stat_get_numscans('texts'::regclass)::float8,
  (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit
   + coalesce(toast_blks_read + toast_blks_hit, 0))::float8
from pg_statio_user_tables where relname = 'texts'
"""
SETTINGS = {
    "app.tenant": TENANT, "ivfflat.probes": "4", "search_path": "public", "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",  # pgbench prepares each of a transaction's statements apart
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """The median of a search, in seconds; scans of the index, of the table, and pages, for each search."""

    median: float
    counted: tuple[float, ...]


def test_a_search_takes_hardly_longer_than_by_pgbench(measured: Measured, tmp_path: Path) -> None:
    rounds, transactions = (10, 20) if measured.long else (5, 5)
    with running() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            fill(connection, 5_000 if measured.long else 2_000)
            connection.execute(_MAKE)
            connection.execute("insert into queries values (1, %s)", (str(drawn(1)[0].tolist()),))
            connection.execute("vacuum analyze texts, queries")
        dsn = server.dsn()

        def turn() -> tuple[Side, Side]:
            ways = (lambda: by_us(dsn, transactions), lambda: by_pgbench(dsn, tmp_path, transactions))
            one, other = (counted(dsn, way, transactions * TOGETHER) for way in ways)
            return one, other

        turns = measured.confirmed(turn, rounds, lambda turns: beside(turns) <= LIMIT)
    ours, theirs = zip(*turns, strict=True)
    what = "a prepared search"
    measured.row(f"{what}: by us", 1000 * statistics.median(side.median for side in ours), "ms")
    measured.row(f"{what}: by pgbench", 1000 * statistics.median(side.median for side in theirs), "ms")
    measured.row(f"{what}: by us beside pgbench", beside(turns), "x", LIMIT)
    for number, counting in enumerate(("scans of the index", "scans of the table", "pages")):
        sides = [statistics.median(side.counted[number] for side in each) for each in (ours, theirs)]
        measured.row(f"{what}: {counting} by pgbench", sides[1])
        measured.row(f"{what}: {counting} by us", sides[0], "", sides[1] * SAME)


def beside(turns: list[tuple[Side, Side]]) -> float:
    """Our median over pgbench's, of the fastest turns: other work on the machine only adds."""
    return min(ours.median for ours, _ in turns) / min(theirs.median for _, theirs in turns)


def by_us(dsn: str, transactions: int) -> float:
    """Median seconds of a search, each the mean of some that follow one another."""
    who = Identity("one", 0, "", frozenset(), "", ROLE, tuple(SETTINGS.items()))
    with psycopg.connect(dsn, autocommit=True) as connection:
        begin(connection, Limits())
        number = numpy.ones(1, numpy.float32)  # as bits: 1, which the statement takes for a number
        with asking(Database(connection), who, statement(_SEARCH, n=None), "bit", []) as asked:
            asked.time(number)  # plans it
            means = [sum(asked.time(number) for _ in range(TOGETHER)) / TOGETHER for _ in range(transactions)]
        connection.execute("rollback")
    return statistics.median(means)


def by_pgbench(dsn: str, folder: Path, transactions: int) -> float:
    """The same, by pgbench's log of transactions (microseconds in its third column)."""
    script, log = folder / "search.sql", folder / "log"
    search = f"{_SEARCH.format(n=':n')};"
    script.write_text("\n".join(["begin;", *[search] * TOGETHER, "commit;", ""]), encoding="ascii")
    settings = " ".join(f"-c {name}={value}" for name, value in {**SETTINGS, "role": ROLE}.items())
    command: list[str | Path] = [
        find_binaries("16") / "pgbench", "-n", "-M", "prepared", "-c", "1", "-t", str(transactions), "-l",
        f"--log-prefix={log}", "-D", "n=1", "-f", script, dsn,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PGOPTIONS": settings})
    (found,) = folder.glob("log.*")
    lines = [line.split() for line in found.read_text(encoding="ascii").splitlines()]
    found.unlink()
    assert len(lines) == transactions
    return statistics.median(float(line[2]) for line in lines) / 1e6 / TOGETHER


def counted(dsn: str, work: Callable[[], float], searches: int) -> Side:
    """What the server counts of the work, once the session that did it is gone."""
    before = counts(dsn)
    median = work()
    return Side(median, tuple((b - a) / searches for a, b in zip(before, counts(dsn), strict=True)))


def counts(dsn: str) -> tuple[float, ...]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        others = "select from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        while connection.execute(others).fetchall():
            time.sleep(0.01)
        row = connection.execute(_COUNTED).fetchone()
    assert row
    return row
