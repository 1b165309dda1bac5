"""What a snapshot costs, against what its queries alone cost: ``python -m benchmarks.snapshot [--short] [VERSION]``.

A catalogue of many tables is built on an embedded server of its own, both before and after ANALYZE.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgconform.introspect import fetch, read_text, snapshot
from pgconform.targets.server import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = {30: 5, 1_000: 5, 10_000: 3}  # tables, and how often each is measured
BATCH = 250  # tables made in one transaction: locks are held until its end
RATIO = 1.5  # a snapshot may cost this many times what its queries cost

_TABLE = """
create table app.{t} (
  id bigint generated always as identity primary key, tenant_id text not null default 'none',
  parent_id bigint references app.{parent}, name text not null check (name <> ''), kind smallint not null default 1,
  note varchar(200), data jsonb not null default '{{}}', created_at timestamptz not null default pg_catalog.now());
create index on app.{t} (tenant_id, created_at desc);
create index on app.{t} (parent_id) where kind > 1;
alter table app.{t} enable row level security;
create policy mine on app.{t} for select to client
  using (tenant_id = (select pg_catalog.current_setting('app.tenant', true)));
create policy add on app.{t} for insert to client
  with check (tenant_id = (select pg_catalog.current_setting('app.tenant', true)) and kind < 9);
grant select, insert on app.{t} to client;
grant all on app.{t} to service;
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in seconds; ``rows`` is what the queries returned, ``growth`` the process's peak in MiB above before."""

    tables: int
    analyzed: bool
    snapshot: float
    queries: float
    rows: int
    growth: float

    @property
    def ratio(self) -> float:
        return self.snapshot / self.queries


def fill(connection: psycopg.Connection[Any], tables: int) -> None:
    """Create the schema ``app`` with that many tables, and the roles that the grants are for."""
    connection.execute("create schema app")
    connection.execute("create role client; create role service; grant usage on schema app to client, service")
    for first in range(0, tables, BATCH):
        with connection.transaction():
            for number in range(first, min(first + BATCH, tables)):
                names = {"t": sql.Identifier(f"t{number}"), "parent": sql.Identifier(f"t{max(0, number - 1)}")}
                connection.execute(sql.SQL(_TABLE).format(**names))


@contextmanager
def transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """As a run's: one moment, read only."""
    connection.execute("begin transaction isolation level repeatable read, read only")
    try:
        yield
    finally:
        connection.execute("rollback")


def measure(connection: psycopg.Connection[Any], tables: int, analyzed: bool, times: int) -> Cost:
    """Snapshots and bare queries in turn on one connection, after one of each to warm up."""
    read_text(connection)
    before = _peak()
    with transaction(connection):
        rows = sum(map(len, fetch(connection).values()))
        snapshot(connection)
        growth = _peak() - before
        bare, whole = [], []
        for _ in range(times):
            bare.append(_seconds(_uncollected(fetch), connection))
            whole.append(_seconds(snapshot, connection))
    return Cost(tables, analyzed, statistics.median(whole), statistics.median(bare), rows, growth)


def _uncollected(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As a snapshot does it, so that the garbage collector's share is not taken for the queries' own."""

    def asked(connection: Any) -> Any:
        gc.disable()
        try:
            return ask(connection)
        finally:
            gc.enable()

    return asked


def _seconds(ask: Callable[[Any], Any], connection: Any) -> float:
    gc.collect()
    started = time.perf_counter()
    answer = ask(connection)
    seconds = time.perf_counter() - started
    del answer  # to throw it away is not part of it
    return seconds


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def costs(sizes: dict[int, int], version: str) -> Iterator[Cost]:
    """Each size on a server of its own, first never analyzed, then analyzed."""
    for tables, times in sizes.items():
        with running(version=version) as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("alter system set autovacuum = off")
            connection.execute("select pg_catalog.pg_reload_conf()")
            fill(connection, tables)
            yield measure(connection, tables, False, times)
            connection.execute("analyze")
            yield measure(connection, tables, True, times)


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a snapshot costs more than it may."""
    sizes = {n: times for n, times in SIZES.items() if n < 10_000 or "--short" not in arguments}
    version = next((each for each in arguments if each.isdigit()), "16")
    print(f"PostgreSQL {version}\n tables  analyzed  snapshot s  queries s  ratio     rows  peak RSS +MiB")
    over = False
    for cost in costs(sizes, version):
        over |= cost.ratio > RATIO
        print(
            f"{cost.tables:7,}  {'yes' if cost.analyzed else 'no':8}  {cost.snapshot:10.3f}  {cost.queries:9.3f}"
            f"  {cost.ratio:5.2f}  {cost.rows:7,}  {cost.growth:13.0f}",
            flush=True,
        )
    return int(over)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
