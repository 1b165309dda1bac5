"""How long a snapshot of the catalogue takes beside its own queries, at 30, 1,000 and 10,000 tables.

    python -m benchmarks.snapshot [--short]

The queries alone are fetched as tuples on the same connection, in turn with the whole snapshot, so that the ratio
holds on a noisy machine. The catalogue is measured as created (never analyzed) and after ANALYZE.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any

import psycopg

from pgconform.catalog_builder import build
from pgconform.contract import Limits
from pgconform.database import begin
from pgconform.introspect import fetch, snapshot
from pgconform.targets.server import running

SIZES = (30, 1_000, 10_000)
LIMIT = 1.5  # a snapshot may take this many times its own queries

_ROLES = """
create role clients nologin; create role owner nologin; create schema tenants;
create function tenants.mine() returns setof bigint language sql stable as 'select 1::bigint';
"""
_TABLES = """
do $$
begin
  for n in {first}..{last} loop
    execute format($t$
      create table tenants.%1$I (
        id bigint primary key, tenant_id bigint not null, parent_id bigint references tenants.%1$I (id),
        name text not null default 'x', amount numeric(12, 2) check (amount >= 0), tags jsonb default '[]',
        created_at timestamptz not null default now(), updated_at timestamptz);
      create index on tenants.%1$I (tenant_id, created_at);
      create index on tenants.%1$I (lower(name)) where amount > 0;
      alter table tenants.%1$I enable row level security;
      create policy reads on tenants.%1$I for select to clients using (tenant_id in (select tenants.mine()));
      create policy writes on tenants.%1$I for insert to clients with check (tenant_id in (select tenants.mine()));
      grant select, insert, update (name) on tenants.%1$I to clients;
    $t$, 'table_' || n);
  end loop;
end
$$"""
_STEP = 250  # tables a transaction: the lock table is finite


def fill(connection: psycopg.Connection[Any], have: int, want: int) -> None:
    """Create tables until there are ``want``."""
    for first in range(have + 1, want + 1, _STEP):
        connection.execute(_TABLES.format(first=first, last=min(first + _STEP - 1, want)).encode())


def measure(connection: psycopg.Connection[Any], rounds: int) -> tuple[float, float, float]:
    """Seconds of the queries alone and of the whole snapshot (medians), and the median of the ratios pair by pair."""
    alone, whole = [], []
    for _ in range(rounds):
        begin(connection, Limits(statement_timeout=600_000))
        started = time.perf_counter()
        fetch(connection)
        alone.append(time.perf_counter() - started)
        started = time.perf_counter()
        snapshot(connection)
        whole.append(time.perf_counter() - started)
        connection.execute("rollback")
    ratios = [w / a for w, a in zip(whole, alone, strict=True)]
    return statistics.median(alone), statistics.median(whole), statistics.median(ratios)


def main() -> int:
    """Print the table; returns 1 when a ratio exceeds the limit."""
    sizes = SIZES[:2] if "--short" in sys.argv else SIZES
    worst = 0.0
    print(f"{'tables':>7} {'analyzed':>9} {'rows':>8} {'queries s':>10} {'snapshot s':>11} {'ratio':>6} {'peak MB':>8}")
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(_ROLES.encode())
        have = 0
        for size in sizes:
            fill(connection, have, size)
            have = size
            for analyzed in (False, True):
                if analyzed:
                    connection.execute("analyze")
                alone, whole, ratio = measure(connection, 3 if size > 1000 else 7)
                begin(connection, Limits(statement_timeout=600_000))
                answers = fetch(connection)
                connection.execute("rollback")
                build(answers)
                rows = sum(map(len, answers.values()))
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                worst = max(worst, ratio)
                print(
                    f"{size:>7} {analyzed!s:>9} {rows:>8} {alone:>10.3f} {whole:>11.3f} {ratio:>6.2f} {peak:>8.0f}",
                    flush=True,
                )
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
