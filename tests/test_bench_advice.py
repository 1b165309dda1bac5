"""What the search benchmark advises: nothing that is in force, nothing that the search itself was not tried under."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from benchmarks.shop import _RAW, EARLY, GOOD, SEARCH, evidence, opened
from benchmarks.shop import contract as promises
from benchmarks.shop import contract as shop_contract
from pgconform.contract import Contract
from pgconform.contract_file import validate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.vectors.bench import Outcome, Wanted, measure
from reports.bench import as_text
from tests.proving import transaction

DISTANCE = "t.embedding operator(public.<=>) :query"
NEAREST = f"""
select t.id, 1 - ({DISTANCE}) as similarity from shop.texts as t
where t.shop_id = :tenant and {DISTANCE} < 0.8 order by {DISTANCE} limit :count
"""
# The order of an iterative scan is nobody's but the index's.
UNSORTED = NEAREST
SORTED = f"""
with near as materialized (
  select t.id, {DISTANCE} as distance from shop.texts as t where t.shop_id = :tenant and {DISTANCE} < 0.8
  order by {DISTANCE} limit :count)
select near.id, 1 - near.distance as similarity from near order by near.distance
"""


@pytest.fixture(scope="module")
def filled() -> Iterator[psycopg.Connection[Any]]:
    with opened() as connection:
        yield connection


@pytest.fixture
def shop(filled: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with transaction(filled, shop_contract()):
        filled.execute("select '[1]'::public.vector")  # before the library is loaded, its settings are dropped
        yield filled


def query(sql: str, **parts: Any) -> Contract:
    promise = {"sql": sql, "vector": "shop.texts.embedding", "execute": ["caller"], "default_threshold": 0.2,
               "index_from": 100_000, **parts}  # fmt: skip
    return validate({**_RAW, "functions": {}, "queries": {"nearest": promise}}, "shop.toml")


def live(connection: psycopg.Connection[Any], promised: Contract | None = None) -> Outcome:
    """As ``benched``, of a target that is never written; with settings tried."""
    database = Database(connection)
    shown = replace(evidence(database, snapshot(connection), promised), writing=None)
    return measure(shown, lambda: nullcontext(database), Wanted(12, (), True, pace=0.1))


def test_what_is_in_force_is_not_advised(shop: psycopg.Connection[Any]) -> None:
    promised, settings, told = query(SORTED, recall=0.5), list[str](), list[str]()
    while not settings and len(told) < 5:  # lists are drawn at random: with some, so many are needed that a new draw
        if told:  # is what is advised, and done here
            shop.execute("reindex index shop.texts_idx")
        told.append(live(shop, promised).advice["nearest"])
        settings = [line for line in told[-1].splitlines() if line.startswith("set local")]
    assert settings, told
    for line in settings:
        shop.execute(line.encode())
    assert live(shop, promised).advice["nearest"].startswith("-- in force already")


def test_what_is_in_force_and_fails_is_not_advised_nor_is_less(shop: psycopg.Connection[Any]) -> None:
    shop.execute("set local ivfflat.probes = 2")
    shop.execute("set local ivfflat.iterative_scan = relaxed_order")
    outcome = live(shop, query(SORTED, recall=0.97))
    told = [problem for problem in outcome.problems if problem.kind in ("recall", "rows")]
    assert told, outcome.now
    for problem in told:
        # An index is built at random: now and then so many lists are needed that it should be built anew first.
        assert "ivfflat.probes" in problem.remedy or problem.remedy.startswith("reindex index"), problem
        assert not any(f"ivfflat.probes = '{n}'" in problem.remedy for n in (1, 2)), problem


def test_a_function_that_has_its_settings_is_told_what_differs(shop: psycopg.Connection[Any]) -> None:
    shop.execute(SEARCH.format(settings="set ivfflat.probes = '1' set ivfflat.iterative_scan = 'off'").encode())
    outcome = live(shop)
    advice = outcome.advice["shop.search"]
    assert "not tried with the function, whose own settings no session changes" in advice
    told = [advice, *(problem.remedy for problem in outcome.problems if problem.kind in ("rows", "recall"))]
    assert len(told) > 1
    assert not any("ivfflat.probes = '1'" in text or "= 'off'" in text for text in told)


@pytest.mark.parametrize("sql", [SORTED, UNSORTED])
def test_an_order_that_is_relaxed_is_told_and_kept_only_by_what_sorts_again(
    shop: psycopg.Connection[Any], sql: str
) -> None:
    outcome = live(shop, query(sql))
    points = outcome.curves["nearest"]
    relaxed = [point for point in points if point.settings.get("ivfflat.iterative_scan") == "relaxed_order"]
    assert any(point.unordered for point in relaxed) is (sql == UNSORTED)
    advice = outcome.advice["nearest"]
    assert advice
    assert ("relaxed_order" in advice) is ("sort them again" in advice)


def test_an_index_that_is_older_than_its_rows_is_built_anew_first(shop: psycopg.Connection[Any]) -> None:
    shop.execute(EARLY.encode())
    shop.execute(SEARCH.format(settings="set ivfflat.probes = '6'").encode())
    outcome = live(shop)
    told = [(problem.cause, problem.remedy) for problem in outcome.problems if problem.kind in ("recall", "rows")]
    assert told
    for cause, remedy in told:
        assert "lists is far more than their root: it was built on few rows" in cause, (cause, remedy)
        lines = [line for line in remedy.splitlines() if not line.startswith("--")]
        assert lines == ["reindex index shop.texts_idx;"]
        assert "alter function" not in remedy or "\n-- where as many are needed after that:\n-- alter" in remedy


def test_a_function_that_limits_before_it_filters_is_told(shop: psycopg.Connection[Any]) -> None:
    text = SEARCH.format(settings="set ivfflat.probes = '12' set enable_seqscan = 'off'")
    wrong = text.replace("select t.id, t.embedding", "select t.id, t.shop_id, t.embedding")
    wrong = wrong.replace("(shop is null or t.shop_id = shop) and ", "").replace("limit n)", "limit 40)")
    wrong = wrong.replace("from near order", "from near where near.shop_id = shop order").replace(
        "end $$", "limit n;end $$"
    )
    shop.execute(wrong.replace("near.distance;\nlimit n;", "near.distance limit n;\n").encode())
    shop.execute("alter function shop.search security definer")
    outcome = live(shop)
    causes = {p.cause for p in outcome.problems if p.case == "shop.search, smallest tenant"}
    assert any("it may limit before it filters" in cause for cause in causes), outcome.problems


def test_rows_that_are_hidden_on_purpose_stay_hidden(shop: psycopg.Connection[Any]) -> None:
    shop.execute("alter table shop.texts add deleted_at timestamptz")
    shop.execute("update shop.texts set deleted_at = now() where id % 2 = 0")
    shop.execute(
        "alter policy own on shop.texts using"
        " (shop_id = pg_catalog.current_setting('app.shop', true) and deleted_at is null)"
    )
    outcome = live(shop)
    told = [problem for problem in outcome.problems if "row security hides" in problem.cause]
    assert told, outcome.problems
    for problem in told:
        assert "own of shop.texts asks for more than whose the row is" in problem.remedy
        assert problem.remedy.startswith("-- ")
        assert "\n" not in problem.remedy
    raw = copy.deepcopy(_RAW)
    raw["functions"]["shop.search"]["search"]["where"] = "deleted_at is null"
    outcome = live(shop, validate(raw, "shop.toml"))
    assert [problem for problem in outcome.problems if "row security" in problem.cause] == []


def test_a_good_setting_that_is_in_force_is_said(shop: psycopg.Connection[Any]) -> None:
    shop.execute(SEARCH.format(settings=GOOD).encode())
    outcome = live(shop, promises())
    assert outcome.problems == []
    advice = outcome.advice["shop.search"]
    assert "= '12'" not in advice
    assert advice in as_text(outcome).replace("\n    ", "\n")
