"""Searches that look at some rows only, and take more than a vector: conditions, filters, given values."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from benchmarks.shop import _RAW, benched, opened
from benchmarks.shop import contract as shop_contract
from benchmarks.shop import evidence as shown
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Contract
from pgconform.contract_file import ContractError, validate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Verdict
from tests.proving import transaction

# The rows of one bot, of which some are drafts: both depend on the key, as tenants do by chance.
MADE = """
alter table shop.texts add column "Bot {x}" integer, add column state text not null default 'live';
update shop.texts set "Bot {x}" = case id % 10 when 0 then 2 when 1 then 3 else 1 end,
  state = case id % 3 when 0 then 'draft' else 'live' end;
create function shop.ask(q public.vector, shop text, bot integer, over real, n smallint, mode text)
returns table (id bigint, similarity float8) language sql stable set search_path = '' as $$
  select t.id, 1 - (t.embedding operator(public.<=>) q) from shop.texts as t
  where {tenant} and t."Bot {x}" = bot and t.state = 'live' and mode = 'fast''s'
    and 1 - (t.embedding operator(public.<=>) q) > over
  order by t.embedding operator(public.<=>) q, t.id limit n
$$;
"""
ARGUMENTS = [("q", "public.vector"), ("shop", "text"), ("bot", "integer"), ("over", "real"),
             ("n", "smallint"), ("mode", "text")]  # fmt: skip
SEARCH = {
    "vector": "shop.texts.embedding", "query": "q", "tenant": "shop", "threshold": "over", "count": "n",
    "filters": {"bot": "Bot {x}"}, "given": {"mode": "fast's"}, "where": "state = 'live' -- not '{draft}'",
    "default_threshold": 0.1, "index_from": 100_000,
}  # fmt: skip


def contract(**changed: Any) -> Contract:
    raw = copy.deepcopy(_RAW)
    arguments = [{"name": name, "type": kind} for name, kind in ARGUMENTS]
    search = {key: value for key, value in {**SEARCH, **changed}.items() if value is not None}
    raw["functions"] = {"shop.ask": {"arguments": arguments, "execute": ["caller"], "search": search}}
    return validate(raw, "shop.toml")


@pytest.mark.parametrize("change, told", [
    ({"given": None}, "argument mode has no default, and nothing says what to pass; name it as tenant, threshold or"),
    ({"filters": None}, "argument bot has no default"), ({"threshold": None}, "argument over has no default"),
    ({"given": {"mode": "x", "n": 1}}, "search.given] n: has its meaning already; name it once"),
    ({"filters": {"bot": "a", "mode": "b"}}, "search.filters] mode: has its meaning already"),
    ({"filters": {"bot": "a", "robot": "b"}}, "search.filters] robot: not declared"),
    ({"given": {"mode": []}}, "given] mode: wanted"),
    *(({"where": text}, ".search] where: wanted one SQL condition") for text in (
        "a; drop table b", "a) or (b", "a from b", "a, b", "a order by 1", "a limit 1", "a where b", ";", "a as b")),
])  # fmt: skip
def test_a_mistake_is_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract(**change)
    (line,) = str(caught.value).splitlines()
    assert line.startswith('shop.toml: [functions."shop.ask"')
    assert told in line


@pytest.fixture(scope="module")
def shop() -> Iterator[psycopg.Connection[Any]]:
    with opened() as connection:
        yield connection


@pytest.fixture
def changed(shop: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with transaction(shop, shop_contract()):
        yield shop


def make(connection: psycopg.Connection[Any], tenant: str = "t.shop_id = shop") -> None:
    connection.execute(MADE.replace("{tenant}", tenant).encode())


def judged(connection: psycopg.Connection[Any], check: str, promised: Contract) -> tuple[Verdict, str]:
    evidence: Evidence = shown(Database(connection), snapshot(connection), promised)
    result = evaluate(load()[check], evidence)
    return result.verdict, "; ".join(finding.observed for finding in result.findings) + result.reason


def test_every_argument_is_given_and_rows_that_are_not_searched_are_not_missed(
    changed: psycopg.Connection[Any],
) -> None:
    make(changed)
    for check in ("search-results", "search-keeps-tenants"):
        verdict, why = judged(changed, check, contract())
        assert (verdict, why) == (Verdict.PASSED, ""), check
    outcome = benched(changed, promised=contract())
    assert (outcome.problems, outcome.unverified) == ([], {})
    assert all(found.recall == 1 for found in outcome.now.cases.values())
    rows = changed.execute(
        "select count(*) from shop.texts where shop_id = 'huge' and \"Bot {x}\" = 1 and state = 'live'"
    ).fetchone()
    assert rows
    assert max(found.rows for found in outcome.now.cases.values()) == rows[0]


@pytest.mark.parametrize("promised", [{"where": None}, {"where": "state = 'draft'"}])
def test_a_condition_that_the_search_does_not_keep_is_found(
    changed: psycopg.Connection[Any], promised: dict[str, Any]
) -> None:
    make(changed)
    verdict, why = judged(changed, "search-results", contract(**promised))
    assert verdict is Verdict.FAILED
    assert re.search(r"more than the \d+ that were asked for or qualify|nearer rows are left out", why), why
    assert benched(changed, promised=contract(**promised)).problems


def test_what_another_tenants_filter_lets_through_is_found(changed: psycopg.Connection[Any]) -> None:
    """The function runs as its owner and trusts the bot's number, which is known to belong to one tenant."""
    make(changed, tenant="true")
    changed.execute("alter function shop.ask security definer")
    changed.execute("update shop.texts set \"Bot {x}\" = 7 where shop_id = 'tiny'")
    verdict, why = judged(changed, "search-keeps-tenants", contract())
    assert verdict is Verdict.FAILED
    assert "other" in why or "own" in why, why


def test_a_filter_of_a_query_is_a_parameter(changed: psycopg.Connection[Any]) -> None:
    make(changed)
    distance = "t.embedding operator(public.<=>) :query"
    sql = f"""select t.id, 1 - ({distance}) as similarity from shop.texts as t
              where t.shop_id = :tenant and t."Bot {{x}}" = :bot::integer and t.state = 'live' and {distance} < 0.9
              order by {distance} limit :count"""
    query = {"sql": sql, "vector": "shop.texts.embedding", "execute": ["caller"], "default_threshold": 0.1,
             "index_from": 100_000, "filters": {"bot": "Bot {x}"}, "where": "state = 'live'"}  # fmt: skip
    raw = {**_RAW, "functions": {}, "queries": {"nearest": query}}
    changed.execute("select '[1]'::public.vector")  # before the library is loaded, its settings are dropped
    changed.execute("set local ivfflat.probes = 40")
    outcome = benched(changed, promised=validate(raw, "shop.toml"))
    assert (outcome.problems, outcome.unverified) == ([], {})
    for filters, told in (({"bot": "a", "robot": "b"}, ":robot in sql"), ({}, "unknown parameter :bot")):
        with pytest.raises(ContractError, match=told):
            validate({**raw, "queries": {"nearest": {**query, "filters": filters}}}, "shop.toml")


def test_a_filter_that_is_no_column_is_said(changed: psycopg.Connection[Any]) -> None:
    make(changed)
    verdict, why = judged(changed, "search-results", contract(filters={"bot": "robot"}))
    assert verdict in (Verdict.BROKEN, Verdict.SKIPPED)
    assert "robot does not exist" in why
