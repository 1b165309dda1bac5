"""How long a snapshot of the catalogue and all checks of structure and security on it take, beside its own queries.

At 30, 1,000 and 10,000 tables of one schema, and at 1,000 schemas of 10 tables each; every time in a database of
its own, as created (never analyzed: autovacuum is off) and in a copy after ANALYZE. The queries alone are fetched as
tuples on the same connection, in turn with the snapshot and the checks, so that the ratios hold on a noisy machine.
Judged is the sum: the whole structural suite, from the first query to the last verdict.
Memory is that of a process that does this once and nothing else. Growth is the time for one table beside that in a
smaller database of the same kind, in turn.
"""

from __future__ import annotations

import datetime
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgconform.catalog import Catalog
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract, Limits
from pgconform.contract_file import validate
from pgconform.database import Database, begin
from pgconform.introspect import fetch, keep, release, snapshot
from pgconform.targets.server import Server, running

from .conftest import Measured
from .processes import apart

LIMIT = 1.5  # the snapshot and all checks of it may together take this many times the snapshot's own queries
MEMORY = 400  # MB of a process that takes a snapshot and checks it
# The time for one table may grow by this factor. Work that grows with the square of the tables would make it 4 or 10,
# even a tenth of such work 1.3 or 1.9.
GROWTH = 1.25
GROWING = ((250, 1_000), pytest.param(1_000, 10_000, marks=pytest.mark.long))
SHAPES = (
    (1, 30), (1, 1_000),
    pytest.param(1, 10_000, marks=pytest.mark.long), pytest.param(1_000, 10, marks=pytest.mark.long),
)  # fmt: skip

_ROLES = "create role clients nologin; create role owner nologin;"
_SHARED = """
create schema tenants; create table public.tenants (id bigint);
create function tenants.mine() returns setof bigint language sql stable as 'select 1::bigint';
revoke execute on function tenants.mine() from public; grant execute on function tenants.mine() to clients;
alter default privileges revoke execute on functions from public;
"""
_TABLES = """
do $$
begin
  for n in {first}..{last} loop
    execute format($t$
      create table {schema}.%1$I (
        id bigint primary key, tenant_id bigint not null, parent_id bigint references {schema}.%1$I (id),
        name text not null default 'x', amount numeric(12, 2) check (amount >= 0), tags jsonb default '[]',
        created_at timestamptz not null default now(), updated_at timestamptz);
      create index on {schema}.%1$I (tenant_id, created_at);
      create index on {schema}.%1$I (parent_id);
      create index on {schema}.%1$I (lower(name)) where amount > 0;
      alter table {schema}.%1$I enable row level security, force row level security;
      create policy reads on {schema}.%1$I for select to clients using (tenant_id in (select tenants.mine()));
      create policy writes on {schema}.%1$I for insert to clients with check (tenant_id in (select tenants.mine()));
      grant select, insert on {schema}.%1$I to clients;
    $t$, 'table_' || n);
  end loop;
end
$$"""
_STEP = 250  # tables a transaction: the lock table is finite


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        with psycopg.connect(started.dsn(), autocommit=True) as connection:
            connection.execute("alter system set autovacuum = off")
            connection.execute("select pg_catalog.pg_reload_conf()")
            connection.execute(_ROLES)
        yield started


@pytest.mark.parametrize("schemas, tables", SHAPES)
@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
def test_the_structural_suite_takes_little_longer_than_its_queries(
    measured: Measured, server: Server, analyzed: bool, schemas: int, tables: int
) -> None:
    contract, many = promised(schemas, tables), schemas * tables
    dsn = ready(server, schemas, tables, analyzed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        turns = measured.confirmed(
            lambda: turn(connection, contract), 3, lambda turns: ratio(turns, 1) + ratio(turns, 2) <= LIMIT
        )
    queries, pictured, checked = (statistics.median(each) for each in zip(*turns, strict=True))
    what = f"{schemas:,} x {tables:,} tables, {'' if analyzed else 'never '}analyzed"
    measured.row(f"{what}: the snapshot's queries", queries, "s", shown=False)
    measured.row(f"{what}: snapshot", pictured, "s")
    measured.row(f"{what}: checks", checked, "s")
    measured.row(f"{what}: snapshot beside its queries", ratio(turns, 1), "x")
    measured.row(f"{what}: checks beside those queries", ratio(turns, 2), "x")
    measured.row(f"{what}: both beside those queries", ratio(turns, 1) + ratio(turns, 2), "x", LIMIT)
    if many >= 1_000:
        peak = apart("benchmarks.test_snapshot:once", dsn, schemas, tables).peak
        measured.row(f"{what}: memory", peak, "MB", MEMORY)


@pytest.mark.parametrize("few, many", GROWING)
@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
def test_time_grows_no_faster_than_the_catalogue(
    measured: Measured, server: Server, analyzed: bool, few: int, many: int
) -> None:
    sides = [(ready(server, 1, tables, analyzed), promised(1, tables)) for tables in (few, many)]
    with psycopg.connect(sides[0][0], autocommit=True) as one, psycopg.connect(sides[1][0], autocommit=True) as other:

        def both() -> float:
            small = min(sum(turn(one, sides[0][1])[1:]) for _ in range(2))
            return sum(turn(other, sides[1][1])[1:]) / many / (small / few)

        grown = measured.confirmed(both, 3, lambda grown: statistics.median(grown) <= GROWTH)
    what = f"{many:,} tables, {'' if analyzed else 'never '}analyzed: time for one, beside {few:,}"
    measured.row(what, statistics.median(grown), "x", GROWTH)


def ready(server: Server, schemas: int, tables: int, analyzed: bool) -> str:
    """The connection string of a database of that shape, made where it is not there yet."""
    plain, name = f"many_{schemas}_{tables}", f"many_{schemas}_{tables}{'_analyzed' if analyzed else ''}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        there = {name for (name,) in connection.execute("select datname from pg_catalog.pg_database").fetchall()}
        if plain not in there:
            create(server, plain, schemas, tables)
        if name not in there and analyzed:
            connection.execute(f"create database {name} template {plain} strategy file_copy".encode())
            with psycopg.connect(server.dsn(name), autocommit=True) as copy:
                copy.execute("analyze")
    return server.dsn(name)


def create(server: Server, name: str, schemas: int, tables: int) -> None:
    """A database of such a catalogue, never analyzed."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        connection.execute(_SHARED)
        for schema in names(schemas):
            place = sql.Identifier(schema)
            connection.execute(sql.SQL("create schema if not exists {}").format(place))
            connection.execute(sql.SQL("grant usage on schema {} to clients").format(place))
            for first in range(1, tables + 1, _STEP):
                part = sql.SQL(_TABLES.format(first=first, last=min(first + _STEP - 1, tables), schema="{schema}"))
                connection.execute(part.format(schema=place))


def names(schemas: int) -> list[str]:
    return ["tenants", *(f"tenants_{n}" for n in range(2, schemas + 1))]


def promised(schemas: int, tables: int) -> Contract:
    """What is promised of these tables."""
    raw = {
        "name": "many",
        "schemas": {"exposed": names(schemas)},
        "roles": {"clients": ["clients"]},
        "sessions": {"member": {"role": "clients", "claims": {"tenant": "{tenant:number}"}}},
        "access": {"tenant": {"clients": {"select": "own", "insert": "own"}}, "none": {}},
        "tenancies": {
            "tenant": {
                "column": "tenant_id", "type": "bigint", "session": "member",
                "registry": {"table": "public.tenants", "key": "id"},
            }
        },
        "tables": {"public.tenants": {"holds": "service", "access": "none"}}
        | {f"{name}.table_{n}": {} for name in names(schemas) for n in range(1, tables + 1)},
    }  # fmt: skip
    return validate(raw, "many.toml")


def examine(connection: psycopg.Connection[Any], contract: Contract, catalog: Catalog) -> int:
    """All checks that ask the catalogue alone; returns how many findings there are."""
    evidence = Evidence(contract, catalog, Database(connection), datetime.datetime.now(datetime.UTC).date())
    asked = ("catalog", "contract", "privileges")
    structural = [check for check in load().values() if set(check.asks) <= set(asked)]
    return sum(len(evaluate(check, evidence).findings) for check in structural)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def turn(connection: psycopg.Connection[Any], contract: Contract) -> tuple[float, float, float]:
    """Seconds of the queries alone, of the snapshot, and of the checks."""
    begin(connection, Limits(statement_timeout=600_000))
    alone, _ = timed(lambda: sum(map(len, fetch(connection).values())))
    pictured, catalog = timed(lambda: snapshot(connection))
    keep()  # as a run does
    checked, _ = timed(partial(examine, connection, contract, catalog))
    del catalog
    release()
    gc.collect()
    connection.execute("rollback")
    return alone, pictured, checked


def once(dsn: str, schemas: int, tables: int) -> int:
    """Snapshot and checks, for a process of its own; returns how many findings there are."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        contract = promised(schemas, tables)
        begin(connection, Limits(statement_timeout=600_000))
        catalog = snapshot(connection)
        keep()
        return examine(connection, contract, catalog)


def ratio(turns: list[tuple[float, float, float]], part: int) -> float:
    """The fastest of a part beside the fastest queries: other work on the machine only adds."""
    return min(turn[part] for turn in turns) / min(turn[0] for turn in turns)
