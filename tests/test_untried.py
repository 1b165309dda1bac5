"""Searches that nobody could try: the reason is what is the case, and no skip is offered where a finding tells it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgconform.reports.skips import Skips

from benchmarks.shop import SEARCH, contract, evidence, opened
from pgconform.catalogue_of_checks import load
from pgconform.checks import evaluate
from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.history import History
from pgconform.introspect import snapshot
from pgconform.model import Result, Verdict
from pgconform.results import Run

REFUSES = SEARCH.format(settings="").replace("begin\n", "begin\n  raise 'no' using errcode = '22000';\n")
# What is done; the reason that each check gives, or its verdict; whether [skips] is offered the reasons.
REASONS = {
    "select": ({"search-results": "", "search-keeps-tenants": "", "search-uses-index": "", "search-effort": ""}, True),
    "drop index shop.texts_idx": ({"search-uses-index": "shop.texts has no valid vector index"}, True),
    "alter table shop.texts alter shop_id drop not null; update shop.texts set shop_id = null": ({
        "search-results": "no tenant has rows in shop.texts", "search-uses-index": "no tenant has rows in shop.texts",
        "search-effort": "no tenant has rows in shop.texts",
        "search-keeps-tenants": "",
    }, True),
    "update shop.texts set embedding = null": (dict.fromkeys(
        ("search-results", "search-uses-index", "search-effort", "search-keeps-tenants"),
        "shop.texts has no vector of 48 dimensions to search with",
    ), True),
    REFUSES: (dict.fromkeys(
        ("search-uses-index", "search-effort"), "shop.search refuses the call, which search-results finds",
    ), False),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[psycopg.Connection[Any]]:
    with opened("alter table shop.texts alter embedding drop not null") as connection:
        yield connection


@pytest.mark.parametrize("change", REASONS)
def test_the_reason_is_what_is_the_case(shop: psycopg.Connection[Any], change: str, tmp_path: Path) -> None:
    reasons, offered = REASONS[change]
    begin(shop, Limits(), read_only=False)
    try:
        shop.execute(change.encode())
        now = datetime.datetime.now(datetime.UTC)
        shown = evidence(Database(shop), snapshot(shop), contract())
        shown = replace(shown, history=History(tmp_path, "shop", "", now))
        results = {check: evaluate(load()[check], shown) for check in ("search-results", *reasons)}
    finally:
        shop.execute("rollback")
    for check, reason in reasons.items():
        assert results[check].reason in (reason, "no earlier run measured shop.search"), check
    run = Run((contract(),))
    run.results += results.values()
    skips = Skips(run)
    skipped: list[Result] = [result for result in results.values() if result.verdict is Verdict.SKIPPED]
    assert all(skips.explained(result) is not offered for result in skipped if result.reason in reasons.values())
