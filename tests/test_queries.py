"""Declared queries: parameters are found in their text and bound, never pasted; they are measured as functions are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from benchmarks.shop import _RAW, benched, opened
from pgconform.contract import Contract, Limits
from pgconform.contract_file import ContractError, validate
from pgconform.database import begin
from pgconform.parameters import named, pieces
from pgconform.statements import Once, statement
from pgconform.vectors.bench import Wanted
from reports.bench import as_text

DISTANCE = "t.embedding operator(public.<=>) :query"
NEAREST = f"""
select t.id, 1 - ({DISTANCE}) as similarity -- :tenant's own {{rows}}, with 100 %
from shop.texts as t where t.shop_id = :tenant and {DISTANCE} < 0.8 order by {DISTANCE} limit :count;
"""


def contract(sql: str, **parts: Any) -> Contract:
    query = {
        "sql": sql, "vector": "shop.texts.embedding", "execute": ["caller"], "default_threshold": 0.2,
        "index_from": 100_000, **parts,
    }  # fmt: skip
    return validate({**_RAW, "functions": {}, "queries": {"nearest": query}}, "shop.toml")


@pytest.mark.parametrize("sql, names", [
    (":query", ["query"]), ("a <=> :query::public.vector", ["query"]),
    ("(:query), :count + :query", ["query", "count"]),
    ("':query' \":query\" -- :query\n/* :query */ $$ :query $$ $a$ :query $a$ ''':query'''", []),
    (r"E'\':query'", []), ("x::text, a[1:2], a[n:count]", []), ("limit $1", ["$1"]), ("'it''s' :tenant", ["tenant"]),
    (":Other", ["Other"]),
])  # fmt: skip
def test_parameters_are_found_outside_of_quotes_and_comments(sql: str, names: list[str]) -> None:
    assert named(sql) == names
    assert "".join(text + (name if name[:1] in ("", "$") else f":{name}") for text, name in pieces(sql)) == sql


def test_a_value_that_is_wanted_once_is_one_parameter() -> None:
    value = Once("x")
    nested = statement("{a} and {a}", a=value)
    whole = statement("select {b}, {n}, {n}, {a}", b=1, n=nested, a=value)
    assert str(whole) == "select 1, 'x' and 'x', 'x' and 'x', 'x'"
    assert whole.run_text() == ("select $1, $2 and $2, $2 and $2, $2", [1, "x"])


@pytest.mark.parametrize("change, told", [
    ({"sql": "select :query limit :number"}, "sql: unknown parameter :number; accepted: :query, :tenant, :count"),
    ({"sql": "select $1, :query limit :count"}, "sql: unknown parameter $1; accepted: :query, :tenant, :count"),
    ({"sql": "select ':query' limit :count"}, "sql: wanted :query in it, where the vector is"),
    ({"sql": "select :query"}, "default_count: missing; wanted how many rows it returns, or :count in sql"),
    ({"vector": "shop.texts.x"}, "vector: not declared"), ({"execute": []}, "execute: wanted the roles that send it"),
    ({"execute": ["nobody"]}, "not declared"), ({"limit": 3}, "limit: unknown key"),
    ({"default_count": 0}, "default_count: wanted"),
])  # fmt: skip
def test_a_mistake_is_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract(**{"sql": NEAREST, **change})
    (line,) = str(caught.value).splitlines()
    assert line.startswith("shop.toml: [queries.nearest")
    assert told in line


def test_a_query_has_a_name_of_its_own_kind() -> None:
    query = {"sql": NEAREST, "vector": "shop.texts.embedding", "execute": ["caller"]}
    with pytest.raises(ContractError, match="wanted a name of lower-case letters"):
        validate({**_RAW, "queries": {"shop.search": query}}, "shop.toml")


@pytest.fixture(scope="module")
def shop() -> Iterator[psycopg.Connection[Any]]:
    with opened() as connection:
        yield connection


def test_a_query_is_measured_as_its_callers_send_it(shop: psycopg.Connection[Any]) -> None:
    begin(shop, Limits(), read_only=False)
    try:
        shop.execute("select '[1]'::public.vector")  # before the library is loaded, its settings are dropped
        shop.execute("set local ivfflat.probes = 40")
        outcome = benched(shop, promised=contract(NEAREST))
        assert (outcome.problems, outcome.unverified) == ([], {})
        assert list(outcome.now.cases) == [
            f"nearest, {who}" for who in ("smallest tenant", "tenant with 3-8 %", "largest tenant", "no tenant")
        ]
        assert all(found.recall == 1 for found in outcome.now.cases.values())
        again = benched(shop, outcome.now, promised=contract(NEAREST))
        assert again.problems == []
    finally:
        shop.execute("rollback")


BROKEN = {
    "threshold": (" < 0.8", " < 2"), "order": (" limit :count", " desc limit :count"),
    "rows": ("t.shop_id = :tenant", "t.shop_id = :tenant and t.id % 40 = 0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_query_that_finds_the_wrong_rows_is_a_problem(shop: psycopg.Connection[Any], kind: str) -> None:
    begin(shop, Limits(), read_only=False)
    try:
        outcome = benched(shop, promised=contract(NEAREST.replace(*BROKEN[kind])), wanted=Wanted(12, (), True))
    finally:
        shop.execute("rollback")
    assert kind in {problem.kind for problem in outcome.problems}, outcome.problems
    assert "nearest" in as_text(outcome)
    assert all("alter function" not in problem.remedy for problem in outcome.problems)
