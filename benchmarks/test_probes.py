"""How long each question to the data takes beside the best statement that we could write for it by hand.

Both are sent in turn on one connection, so that the ratio holds on a noisy machine; of 200,000 rows, and in the long
form of 5,000,000. Memory is what the server's processes, the session's and its parallel workers', have of their own
(RssAnon, sampled), beside what they had before: a question may take work_mem for each of its sorts and hashes, and no
more. Python's is what ours grew by at most. No promise is broken, so that every question looks at all rows.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pgconform.catalog import Catalog
from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, evaluate, subject_name
from pgconform.contract import Contract
from pgconform.contract_file import validate
from pgconform.database import Database, begin
from pgconform.introspect import snapshot
from pgconform.model import Verdict
from pgconform.targets.server import running

from .conftest import Measured
from .processes import forget_peak, memory, of_server

SHORT, LONG = 200_000, 5_000_000  # rows
LIMIT = 1.3  # times the hand-written statement
FLOOR = 0.02  # seconds that make no difference to anybody
WORK_MEM_MB, PYTHON_MB = 64, 200
HASHES = 6  # sorts and hashes of one statement, its parallel workers' among them

_TABLES = """
create extension vector schema public;
create schema shop;
create table shop.shops (id uuid primary key, is_active boolean not null, created_at timestamptz not null);
create table shop.staff (user_id uuid not null, shop_id uuid not null, role text not null, is_active boolean not null);
create table shop.customers (id bigint primary key, shop_id uuid not null);
create table shop.orders (id bigint primary key, shop_id uuid not null, total numeric not null);
create table shop.items (
  id bigint primary key, shop_id uuid not null, customer_id bigint, order_id bigint, number text not null,
  code text not null, label text not null, unit text not null, chunk int not null, chunks int not null,
  status text not null, price numeric, assigned boolean not null, assigned_to uuid, body text not null,
  created_at timestamptz not null, embedding vector(8));
create table shop.archive (like shop.items);
create table shop.samples (metric_name text not null, metric_value numeric not null, recorded_at timestamptz not null);
insert into shop.shops
select pg_catalog.md5('s' || n)::uuid, true, '2020-01-01' from pg_catalog.generate_series(0, 99) as n;
insert into shop.staff
select pg_catalog.md5('u' || n)::uuid, pg_catalog.md5('s' || n % 100)::uuid, 'admin', true
from pg_catalog.generate_series(0, 999) as n;
insert into shop.customers
select n, pg_catalog.md5('s' || n % 100)::uuid from pg_catalog.generate_series(0, {rows} / 10 - 1) as n;
insert into shop.items
select n, pg_catalog.md5('s' || n % 100)::uuid, n % ({rows} / 10), n % ({rows} / 5), 'N' || n, 'C' || n % ({rows} / 2),
  'L' || n % ({rows} / 2), 'U' || n / 1000, n % 1000 / 100, 10, (array['new', 'paid', 'sent'])[n % 3 + 1], n % 1000,
  n % 2 = 0, case n % 2 when 0 then pg_catalog.md5('u' || n % 1000)::uuid end, 'a text about the item ' || n,
  pg_catalog.now() - pg_catalog.make_interval(secs => n % 30000000),
  array[1, n, n % 7, n % 11, 1, 1, 1, 1]::vector(8)
from pg_catalog.generate_series(0, {rows} - 1) as n;
update shop.items set embedding = public.l2_normalize(embedding), status = case id when 1 then 'lost' else status end;
insert into shop.orders
select order_id, pg_catalog.md5('s' || order_id % 100)::uuid, pg_catalog.sum(price) from shop.items group by order_id;
insert into shop.archive select i.* from shop.items as i limit 0;
insert into shop.archive
select id + {rows}, shop_id, customer_id, order_id, number, code, label, unit, chunk, chunks, status, price, assigned,
  assigned_to, body, created_at, embedding from shop.items where id % 10 = 0;
insert into shop.samples
select 'connections', n, pg_catalog.now() - pg_catalog.make_interval(mins => n)
from pg_catalog.generate_series(0, {rows} - 1) as n;
create table shop.sales as
select pg_catalog.count(distinct customer_id) as buyers from shop.items where status = 'paid';
"""
_CONTRACT: dict[str, Any] = {
    "name": "shop",
    "schemas": {"exposed": ["shop"]},
    "roles": {"clients": ["public"]},
    "sessions": {"member": {"role": "public", "claims": {"sub": "{user}"}}},
    "access": {"tenant": {}, "service": {}},
    "limits": {"statement_timeout": 3_600_000},
    "metrics": {"table": "shop.samples", "known": ["connections", "sizes"]},
    "reports": [{"relation": "shop.sales", "column": "buyers", "table": "shop.items", "aggregate": "count distinct",
                 "of": "customer_id", "where": {"status": "paid"}}],
    "tenancies": {"shop": {
        "column": "shop_id", "type": "uuid",
        "registry": {"table": "shop.shops", "key": "id", "active": "is_active", "created": "created_at"},
        "members": {"table": "shop.staff", "user": "user_id", "tenant": "shop_id", "active": "is_active",
                    "role": "role", "roles": ["admin", "clerk"], "admin": "admin"},
        "complete": [{"table": "shop.items", "column": "shop_id"}],
    }},
    "tables": {
        "shop.shops": {"column": "id"}, "shop.staff": {}, "shop.customers": {},
        "shop.orders": {"totals": [
            {"column": "total", "detail": "shop.items", "detail_column": "price", "detail_key": "order_id"},
        ]},
        "shop.archive": {},
        "shop.items": {
            "references": [{"columns": ["customer_id"], "table": "shop.customers", "declared": False}],
            "unique": [["number"]], "exclusive": ["code"], "distinct": ["body"], "determines": {"code": "label"},
            "times": ["created_at"], "minimum": {"price": 0}, "values": {"status": ["new", "paid", "sent", "lost"]},
            "filled": [{"column": "price", "share": 0.9, "above": -1.0}],
            "allowed": [{"column": "status", "value": "lost", "key": "number", "keys": ["N1"], "otherwise": "sent"}],
            "flags": [{"flag": "assigned", "column": "assigned_to"}],
            "chunks": {"unit": ["unit"], "number": "chunk", "total": "chunks"},
            "retention": {"column": "created_at", "days": 400, "archive": "shop.archive"},
            "vectors": {"embedding": {"dimension": 8, "index": False}},
        },
    },
}  # fmt: skip
_PER_SHOP = "select pg_catalog.count(*) from shop.items as r"
# Check, or check:subject where it has several, to the statement that answers it best.
BY_HAND = {
    "orphans": f"{_PER_SHOP} left join shop.customers as p on p.id = r.customer_id"
    " where p.id is null and r.customer_id is not null",
    "tenant-known:shop.items": f"{_PER_SHOP} where not exists (select from shop.shops as s where s.id = r.shop_id)",
    "unique-keys": "select pg_catalog.count(*) - pg_catalog.count(distinct number) from shop.items",
    "one-value-per-key": "select shop_id, code from shop.items group by 1, 2 having min(label) <> max(label)",
    "shared-by-tenants": "select code from shop.items group by 1 having min(shop_id::text) <> max(shop_id::text)",
    "duplicate-content": "select shop_id, body from shop.items group by 1, 2 having pg_catalog.count(*) > 1",
    "times-plausible": f"{_PER_SHOP} join shop.shops as s on s.id = r.shop_id"
    " where r.created_at > pg_catalog.now() or r.created_at < s.created_at",
    "onboarding-complete": "select id from shop.shops except select shop_id from shop.items",
    "chunks-complete": "select shop_id, unit from shop.items group by 1, 2 having pg_catalog.count(*) <> max(chunks)"
    " or min(chunk) <> 0 or max(chunk) <> max(chunks) - 1 or min(chunks) <> max(chunks)"
    " or pg_catalog.count(distinct chunk) <> pg_catalog.count(*)",
    "retention": f"{_PER_SHOP} where created_at < pg_catalog.now() - interval '400 days'",
    "archive-disjoint": f"{_PER_SHOP} join shop.archive as a using (id)",
    "values-declared:shop.items": f"{_PER_SHOP} where status not in ('new', 'paid', 'sent', 'lost')",
    "values-in-bounds": f"{_PER_SHOP} where price < 0 or price = 'NaN'",
    "values-filled": "select pg_catalog.count(*), pg_catalog.count(*) filter (where price > -1) from shop.items",
    "values-allowed": f"{_PER_SHOP} where (status = 'lost') <> (number = 'N1')",
    "flags-agree": f"{_PER_SHOP} where assigned is distinct from (assigned_to is not null)",
    "totals-reconcile": "with s as materialized"
    " (select order_id, pg_catalog.sum(price) as s from shop.items group by 1)"
    " select pg_catalog.count(*) from shop.orders as o left join s on s.order_id = o.id"
    " where o.total <> coalesce(s.s, 0)",
    "reports-reconcile": "select pg_catalog.count(distinct customer_id) from shop.items where status = 'paid'",
    "metrics-sound": "select pg_catalog.count(*) from shop.samples where metric_name not in ('connections', 'sizes')"
    " or metric_value in ('NaN', 'Infinity', '-Infinity')",
    "metrics-fresh": "select pg_catalog.max(recorded_at) from shop.samples",
    "embedding-coverage": "select shop_id, pg_catalog.count(*), pg_catalog.count(embedding) from shop.items group by 1",
    "embedding-health": "select pg_catalog.avg(public.vector_dims(embedding)) from shop.items",
    "embedding-zero": f"{_PER_SHOP} where public.vector_norm(embedding) = 0",
    "embedding-norm": f"{_PER_SHOP} where public.vector_norm(embedding) not between 0.99 and 1.01",
    "embedding-distinct": "select pg_catalog.sha256(public.vector_send(embedding)) from shop.items group by 1"
    " having pg_catalog.count(*) > 1",
}
# Looks at tables of a hundred rows, or at the catalogue alone.
SMALL = {"tenant-has-admin", "members-valid", "registry-sound", "embedding-dimension"}


def cases(contract: Contract) -> list[tuple[str, Check, Any]]:
    """The data checks with their subjects of ``shop.items``, by the key that they have in BY_HAND."""
    found = []
    for check in data_checks():
        for subject in check.subjects(contract):
            key = check.id if check.id in BY_HAND else f"{check.id}:{subject_name(subject).rpartition('.')[0]}"
            if key in BY_HAND:
                found.append((key, check, subject))
    return found


def data_checks() -> list[Check]:
    """Those that ask the rows of a table that may be large. A test sees that each of them is measured."""
    mine = (check for check in load().values() if check.module.split(".")[-2] in ("integrity", "embeddings"))
    return [check for check in mine if check.module.split(".")[-1] != "test_columns" and check.id not in SMALL]


@contextmanager
def sampled(pid: int) -> Iterator[list[float]]:
    """MB that the server's processes, parallel workers too, take more than before: the highest of the samples."""
    seen, done = [0.0], threading.Event()
    before = of_server(pid)

    def sample() -> None:
        while not done.wait(0.02):
            seen[0] = max(seen[0], of_server(pid) - before)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def connection(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """To a database of the tables, filled."""
    rows = LONG if request.config.getoption("long") else SHORT
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in _TABLES.format(rows=rows).split(";\n"):
            connection.execute(statement.encode())
        connection.execute("vacuum analyze")
        connection.execute(f"set work_mem = '{WORK_MEM_MB}MB'")
        yield connection


CONTRACT = validate(_CONTRACT, "benchmark")


@pytest.mark.parametrize(
    "key, check, subject", [pytest.param(*case, id=f"{n}-{case[0]}") for n, case in enumerate(cases(CONTRACT))]
)
def test_a_question_takes_little_longer_than_by_hand(
    measured: Measured, connection: psycopg.Connection[Any], key: str, check: Check, subject: Any
) -> None:
    begin(connection, CONTRACT.limits)
    catalog = snapshot(connection)
    forget_peak()
    before = memory("VmRSS")
    turns = measured.confirmed(
        lambda: turn(connection, catalog, check, subject, BY_HAND[key]),
        3 if measured.long else 5,
        lambda turns: beside(turns) <= LIMIT,
    )
    own = memory("VmHWM") - before
    connection.execute("rollback")
    ours, _, used = zip(*turns, strict=True)
    what = f"question {key} of {LONG if measured.long else SHORT:,} rows"
    measured.row(what, statistics.median(ours), "s", shown=False)
    measured.row(f"{what}, beside by hand", beside(turns), "x", LIMIT)
    measured.row(f"{what}, server's memory", max(used), "MB", HASHES * WORK_MEM_MB, shown=False)
    measured.row(f"{what}, Python's memory", own, "MB", PYTHON_MB, shown=False)


def beside(turns: list[tuple[float, float, float]]) -> float:
    """Our time over that by hand, both at their fastest, since other work on the machine only adds; 1 at the most where
    the difference matters to nobody."""
    ours, theirs = min(took for took, _, _ in turns), min(took for _, took, _ in turns)
    return ours / theirs if ours - theirs >= FLOOR else min(1.0, ours / theirs)


def turn(
    connection: psycopg.Connection[Any], catalog: Catalog, check: Check, subject: Any, by_hand: str
) -> tuple[float, float, float]:
    """Seconds of the check and of the statement; MB that the server took for the check."""
    started = time.perf_counter()
    connection.execute(by_hand.encode()).fetchall()
    theirs = time.perf_counter() - started
    evidence = Evidence(CONTRACT, catalog, Database(connection), datetime.now(UTC).date())
    with sampled(connection.info.backend_pid) as seen:
        started = time.perf_counter()
        result = evaluate(check, evidence, [subject])
        ours = time.perf_counter() - started
    told = f"{check.id} {subject_name(subject)}: {result.verdict} {result.reason} {result.findings[:1]}"
    assert result.verdict is Verdict.PASSED, told
    return ours, theirs, seen[0]
