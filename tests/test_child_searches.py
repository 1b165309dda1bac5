"""Searches over rows that say by their parents whose they are: as those of tenants' own tables are."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.shop import _RAW, SHARES, benched, opened
from benchmarks.shop import contract as shop_contract
from benchmarks.shop import evidence as shown
from pgconform.catalogue_of_checks import load
from pgconform.checks import evaluate
from pgconform.contract import Contract
from pgconform.contract_file import validate
from pgconform.database import Database
from pgconform.history import History
from pgconform.introspect import snapshot
from pgconform.model import Result, Verdict
from pgconform.people import owned_counts
from pgconform.probes.shares import askers
from tests.proving import transaction

# Chunks of documents of a tenant's folder; the folder alone says whose they are.
SEARCH = """
create or replace function shop.find(
  q public.vector, shop text default null, threshold float8 default 0.2, n int default 5)
returns table (id bigint, similarity float8) language plpgsql stable set search_path = ''
set plan_cache_mode = 'force_custom_plan' {settings} as $$
begin
  return query with near as materialized (
    select c.id, c.embedding operator(public.<=>) q as distance from shop.chunks as c
    where c.embedding operator(public.<=>) q < 1 - threshold and exists (
      select from shop.documents as d join shop.folders as f on f.id = d.folder
      where d.id = c.document_id and {tenant})
    order by c.embedding operator(public.<=>) q limit n)
  select near.id, 1 - near.distance from near order by near.distance;
end $$;
"""
# All lists: the table is small for the planner to take the index of itself.
GOOD = "set ivfflat.probes = '40' set enable_seqscan = 'off' set enable_sort = 'off'"
NAMED = "(shop is null or f.shop_id = shop)"
MADE = f"""
create table shop.folders (id integer primary key, shop_id text);
create table shop.documents (id bigint primary key, folder integer references shop.folders);
insert into shop.folders select row_number() over (order by shop_id), shop_id from shop.texts group by shop_id;
insert into shop.documents select t.id, f.id from shop.texts as t join shop.folders as f on f.shop_id = t.shop_id
  where t.id % 5 = 0 or t.shop_id = 'tiny';
create table shop.chunks (id bigint primary key, document_id bigint, embedding public.vector(48));
insert into shop.chunks select t.id, coalesce(d.id, (select min(e.id) from shop.documents as e join shop.folders as f
  on f.id = e.folder where f.shop_id = t.shop_id)), t.embedding
  from shop.texts as t left join shop.documents as d on d.id = t.id;
create index chunks_idx on shop.chunks using ivfflat (embedding public.vector_cosine_ops) with (lists = 40);
alter table shop.folders enable row level security;
alter table shop.documents enable row level security;
alter table shop.chunks enable row level security;
create policy own on shop.folders for select to caller using (shop_id = pg_catalog.current_setting('app.shop', true));
create policy own on shop.documents for select to caller using (folder in (select f.id from shop.folders as f));
create policy own on shop.chunks for select to caller using (document_id in (select d.id from shop.documents as d));
grant select on shop.folders, shop.documents, shop.chunks to caller;
{SEARCH.format(settings=GOOD, tenant=NAMED)}
analyze shop.folders, shop.documents, shop.chunks;
"""
CHECKS = ("search-results", "search-uses-index", "search-keeps-tenants")


def contract(scope: str = "own") -> Contract:
    raw: dict[str, Any] = copy.deepcopy(_RAW)
    raw["access"]["child"] = {"caller": {"select": scope}}
    raw["tables"]["shop.folders"] = {}
    raw["tables"]["shop.documents"] = {"holds": "child", "parent": "shop.folders", "column": "folder"}
    chunks = {"holds": "child", "parent": "shop.documents", "column": "document_id", "access": "child"}
    raw["tables"]["shop.documents"]["access"] = "child"
    raw["tables"]["shop.chunks"] = {**chunks, "vectors": raw["tables"]["shop.texts"].pop("vectors")}
    promise = raw["functions"].pop("shop.search")
    promise["search"]["vector"] = "shop.chunks.embedding"
    raw["functions"]["shop.find"] = {**promise, "definition": SEARCH.format(settings=GOOD, tenant=NAMED)}
    return validate(raw, "shop.toml")


@pytest.fixture(scope="module")
def filled() -> Iterator[psycopg.Connection[Any]]:
    with opened(MADE) as connection:
        yield connection


@pytest.fixture
def shop(filled: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with transaction(filled, shop_contract()):
        yield filled


def judged(connection: psycopg.Connection[Any], check: str, promised: Contract) -> Result:
    return evaluate(load()[check], shown(Database(connection), snapshot(connection), promised))


def test_rows_are_counted_through_their_parents(shop: psycopg.Connection[Any]) -> None:
    shop.execute("insert into shop.folders values (99, null); insert into shop.documents values (-1, 99), (-2, null)")
    shop.execute("insert into shop.chunks (id, document_id) values (-1, -1), (-2, -2), (-3, -3), (-4, null)")
    evidence = shown(Database(shop), snapshot(shop), contract())
    counted = owned_counts(evidence, "shop.chunks")
    rows = dict(shop.execute("select shop_id, count(*) from shop.texts group by 1").fetchall())
    assert dict(counted) == {**rows, "": 4}
    chosen = askers(evidence, "shop.chunks", ["caller"])
    assert [(one.share, *one.who.tenants, one.rows) for one in chosen] == [
        ("smallest tenant", "tiny", rows["tiny"]), ("tenant with 3-8 %", "fair", rows["fair"]),
        ("largest tenant", "huge", rows["huge"]),
    ]  # fmt: skip


def test_members_of_small_and_large_tenants_search(shop: psycopg.Connection[Any], tmp_path: Path) -> None:
    for check in CHECKS:
        result = judged(shop, check, contract())
        assert (result.verdict, result.reason) == (Verdict.PASSED, ""), (check, result.findings, result.unverified)
    outcome = benched(shop, promised=contract())
    assert (outcome.problems, outcome.unverified) == ([], {})
    shares = ("smallest tenant", "tenant with 3-8 %", "largest tenant", "no tenant")
    assert list(outcome.now.cases) == [f"shop.find, {share}" for share in shares]
    assert [round(found.rows / found.total, 2) for found in outcome.now.cases.values()] == [
        pytest.approx(share, abs=0.02) for share in (SHARES["tiny"], SHARES["fair"], SHARES["huge"], 0)
    ]
    history = History(tmp_path, "shop", "", datetime.datetime.now(datetime.UTC))
    evidence = replace(shown(Database(shop), snapshot(shop), contract()), history=history)
    assert {figure.name for figure in evaluate(load()["search-effort"], evidence).figures} >= {
        "search recall: shop.find", "search pages touched: shop.find"
    }  # fmt: skip


def test_a_small_tenant_that_is_starved_is_found(shop: psycopg.Connection[Any]) -> None:
    shop.execute(SEARCH.format(settings="set ivfflat.probes = '1'", tenant=NAMED).encode())
    shop.execute("set local enable_seqscan = off")
    (finding,) = judged(shop, "search-results", contract()).findings
    assert "rows qualify" in finding.observed, finding.observed
    starved = {p.case for p in benched(shop, promised=contract()).problems if p.kind in ("rows", "recall")}
    assert "shop.find, smallest tenant" in starved


def test_another_tenants_children_are_found(shop: psycopg.Connection[Any]) -> None:
    shop.execute(SEARCH.format(settings=GOOD, tenant=NAMED).replace("stable", "stable security definer").encode())
    (finding,) = judged(shop, "search-keeps-tenants", contract()).findings
    assert "foreign row(s) found" in finding.observed
    shop.execute(SEARCH.format(settings=GOOD, tenant="true").replace("stable", "stable security definer").encode())
    assert "foreign rows" in {problem.kind for problem in benched(shop, promised=contract()).problems}


def test_a_tenant_that_is_named_limits_the_exact_answer(shop: psycopg.Connection[Any]) -> None:
    """Also where the caller may read everybody's rows."""
    for table in ("folders", "documents", "chunks"):
        shop.execute(f"alter table shop.{table} disable row level security".encode())
    result = judged(shop, "search-results", contract("all"))
    assert result.verdict is Verdict.PASSED, result.findings
