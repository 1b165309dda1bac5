"""How long a snapshot of the catalogue, and all checks of structure and security on it, take beside its own queries.

    python -m benchmarks.snapshot [--short]

At 30, 1,000 and 10,000 tables of one schema, as created (never analyzed) and after ANALYZE, and at 1,000 schemas of 10
tables each; --short leaves out what is above 1,000 tables. The queries alone are fetched as tuples on the same
connection, in turn with the snapshot and the checks, so that the ratios hold on a noisy machine.
"""

from __future__ import annotations

import datetime
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from pgconform.catalog import Catalog
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract, Limits
from pgconform.contract_file import validate
from pgconform.database import Database, begin
from pgconform.introspect import fetch, snapshot
from pgconform.targets.server import running

SHAPES = ((1, 30), (1, 1_000), (1, 10_000), (1_000, 10))  # schemas, tables in each
LIMIT = 1.5  # the snapshot, and all checks of it, may each take this many times the snapshot's own queries
MEMORY = 400  # MB that the process may ever take
GROWTH = 2.0  # from 1,000 to 10,000 tables, the time for one table may grow by this factor

_ROLES = """
create role clients nologin; create role owner nologin; create schema tenants; create table public.tenants (id bigint);
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


def fill(connection: psycopg.Connection[Any], schemas: int, tables: int) -> Contract:
    """Create the schemas with their tables, where they are not there yet; returns what is promised of them."""
    names = ["tenants", *(f"tenants_{n}" for n in range(2, schemas + 1))]
    for name in names:
        place = sql.Identifier(name)
        connection.execute(sql.SQL("create schema if not exists {}").format(place))
        connection.execute(sql.SQL("grant usage on schema {} to clients").format(place))
        row = connection.execute("select count(*) from pg_catalog.pg_tables where schemaname = %s", (name,)).fetchone()
        for first in range((row or (0,))[0] + 1, tables + 1, _STEP):
            part = sql.SQL(_TABLES.format(first=first, last=min(first + _STEP - 1, tables), schema="{schema}"))
            connection.execute(part.format(schema=place))
    promised = {
        "name": "many",
        "schemas": {"exposed": names},
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
        | {f"{name}.table_{n}": {} for name in names for n in range(1, tables + 1)},
    }  # fmt: skip
    return validate(promised, "many.toml")


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


def measure(connection: psycopg.Connection[Any], contract: Contract, rounds: int) -> tuple[list[float], int, int]:
    """Medians: seconds of the queries, of the snapshot, of the checks, and the ratios of the latter two to the queries,
    pair by pair; then rows of the catalogue, and findings."""
    runs = []
    for _ in range(rounds):
        begin(connection, Limits(statement_timeout=600_000))
        alone, rows = timed(lambda: sum(map(len, fetch(connection).values())))
        pictured, catalog = timed(lambda: snapshot(connection))
        gc.freeze()  # as a run does
        checked, findings = timed(partial(examine, connection, contract, catalog))
        del catalog
        gc.unfreeze()
        gc.collect()
        connection.execute("rollback")
        runs.append((alone, pictured, checked, pictured / alone, checked / alone))
    return [statistics.median(each) for each in zip(*runs, strict=True)], rows, findings


def main() -> int:
    """Print the table; returns 1 when a limit is exceeded."""
    shapes = SHAPES[:2] if "--short" in sys.argv else SHAPES
    print(f"{'schemas':>7} {'tables':>6} {'analyzed':>8} {'rows':>7} {'queries s':>9} {'snapshot s':>10} {'ratio':>5}"
          f" {'checks s':>8} {'ratio':>5} {'peak MB':>7} {'findings':>8}")  # fmt: skip
    worst = peak = 0.0
    each: dict[int, float] = {}
    load()
    with running() as server:
        for schemas, tables in shapes:
            if schemas > 1:
                _fresh(server.dsn())
            with psycopg.connect(server.dsn("many") if schemas > 1 else server.dsn(), autocommit=True) as connection:
                if tables == SHAPES[0][1] or schemas > 1:
                    connection.execute((_ROLES if schemas == 1 else _ROLES.partition("owner nologin;")[2]).encode())
                contract = fill(connection, schemas, tables)
                for analyzed in (False, True):
                    if analyzed:
                        connection.execute("analyze")
                    many = schemas * tables
                    times, rows, findings = measure(connection, contract, 3 if many > 1000 else 7)
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                    worst = max(worst, times[3], times[4])
                    each[many] = (times[1] + times[2]) / many
                    print(f"{schemas:>7} {tables:>6} {analyzed!s:>8} {rows:>7} {times[0]:>9.3f} {times[1]:>10.3f}"
                          f" {times[3]:>5.2f} {times[2]:>8.3f} {times[4]:>5.2f} {peak:>7.0f} {findings:>8}",
                          flush=True)  # fmt: skip
    grown = each.get(10_000, 0) / each[1_000]
    print(f"worst ratio {worst:.2f}, limit {LIMIT}; peak {peak:.0f} MB, limit {MEMORY};"
          f" time a table at 10,000 over 1,000: {grown:.2f}, limit {GROWTH}")  # fmt: skip
    return int(worst > LIMIT or peak > MEMORY or grown > GROWTH)


def _fresh(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create database many")


if __name__ == "__main__":
    raise SystemExit(main())
