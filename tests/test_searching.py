"""Searches beside the exact answer take no more time than the contract's limits give them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from benchmarks.shop import GOOD, SEARCH, fill
from benchmarks.shop import contract as shop_contract
from benchmarks.shop import evidence as shown
from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.history import History
from pgconform.introspect import read_text, snapshot
from pgconform.model import Verdict
from pgconform.probes.searching import Answer, answers, faults, recall
from pgconform.subjects import searches
from pgconform.targets.server import running
from tests.conftest import Connect
from tests.proving import contract_of, transaction


def test_what_there_was_no_time_for_is_said(connect: Connect) -> None:
    contract = contract_of("muva")
    hurried = msgspec.structs.replace(contract, limits=msgspec.structs.replace(contract.limits, search_seconds=0))
    connection = connect("muva")
    with transaction(connection, hurried):
        evidence = Evidence(
            hurried, snapshot(connection), Database(connection), datetime.datetime.now(datetime.UTC).date()
        )
        answered = evaluate(load()["search-results"], evidence)
        recalled = evaluate(load()["search-recall"], evidence)
    assert answered.verdict is Verdict.BROKEN
    assert {re.sub(r"\d+", "N", reason) for _, reason in answered.unverified} == {
        "no time for N of N searches; raise search_seconds in [limits]"
    }
    assert recalled.verdict is Verdict.PASSED, "one query is measured in any case"


def test_a_plan_that_the_session_has_kept_is_not_what_is_judged(connect: Connect) -> None:
    contract, connection = contract_of("muva"), connect("muva")
    with transaction(connection, contract):
        signature = "public.match_sire_documents(extensions.vector, double precision, integer)"
        connection.execute(f"alter function {signature} security definer reset plan_cache_mode".encode())
        connection.execute("alter table public.sire_content disable row level security")  # or each role plans anew
        connection.execute("set local enable_indexscan = off")
        nearest = "(select d.embedding from public.sire_content as d where d.embedding is not null limit 1)"
        for count in range(1, 9):  # from the sixth call on, plpgsql may keep one plan for all
            connection.execute(f"select from public.match_sire_documents({nearest}, 0, {count})".encode())
        connection.execute("set local enable_indexscan = on")
        now = datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, snapshot(connection), Database(connection), now)
        found = evaluate(load()["search-uses-index"], evidence).findings
    assert [finding.object for finding in found] == []


def test_searches_of_every_check_keep_to_the_time(connect: Connect, tmp_path: Path) -> None:
    contract = contract_of("muva")
    hurried = msgspec.structs.replace(contract, limits=msgspec.structs.replace(contract.limits, search_seconds=0))
    connection = connect("muva")
    now = datetime.datetime.now(datetime.UTC)
    with transaction(connection, hurried):
        history = History(tmp_path, "muva", "", now)
        evidence = Evidence(hurried, snapshot(connection), Database(connection), now.date(), history=history)
        for name in ("search-uses-index", "search-effort"):
            result = evaluate(load()[name], evidence)
            assert result.verdict is Verdict.BROKEN, name
            assert all("raise search_seconds in [limits]" in reason for _, reason in result.unverified), name


@pytest.fixture(scope="module")
def shop() -> Iterator[psycopg.Connection[Any]]:
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        read_text(connection)
        fill(connection)
        yield connection


def judged(connection: psycopg.Connection[Any], probes: int, least: float) -> tuple[dict[str, str], float]:
    """What is wrong with the shop's search by an ivfflat index of 40 lists, ten vectors of each kind, and the lowest
    recall of a caller."""
    contract = shop_contract()
    (name, promise), *_ = contract.functions.items()
    assert promise.search
    search = msgspec.structs.replace(promise.search, recall=least)
    limits = msgspec.structs.replace(contract.limits, searches=10)
    functions = {name: msgspec.structs.replace(promise, search=search)}
    contract = msgspec.structs.replace(contract, functions=functions, limits=limits)
    connection.execute(SEARCH.format(settings=f"{GOOD} set ivfflat.probes = '{probes}'").encode())
    evidence = shown(Database(connection), snapshot(connection), contract)
    (subject,) = searches(contract)
    given = list(answers(subject, evidence))
    means: dict[str, list[float]] = {}
    for answer in given:
        means.setdefault(str(answer.identity), []).append(recall(answer))
    assert len(means) == 3
    return faults(subject, given), min(sum(shares) / len(shares) for shares in means.values())


def test_an_approximate_index_is_judged_by_the_recall_that_is_promised(shop: psycopg.Connection[Any]) -> None:
    begin(shop, Limits(), read_only=False)
    try:
        wrong, least = judged(shop, 6, 0.75)
        assert (wrong, 0.75 < least < 1) == ({}, True), (wrong, least)
        wrong, least = judged(shop, 6, 0.999)
        assert any(re.search("recall 0.*promised 0.999", why) for why in wrong.values()), (wrong, least)
    finally:
        shop.execute("rollback")


def test_rows_as_near_as_the_last_count_for_one_another() -> None:
    def told(keys: str, said: tuple[float, ...]) -> Answer:
        return Answer(None, "", tuple(keys), said, (0.9, 0.8, 0.5001, 0.5), 0, tuple("abcd"))  # type: ignore[arg-type]

    assert recall(told("abcd", (0.9, 0.8, 0.5001, 0.5))) == 1
    assert recall(told("abxy", (0.9, 0.8, 0.5, 0.4999))) == 1
    assert recall(told("bcdx", (0.8, 0.5001, 0.5, 0.4999))) == 0.75, "the nearest row is left out"
    assert recall(told("axyz", (0.9, 0.45, 0.44, 0.4))) == 0.25
    assert recall(told("", ())) == 0
