"""Searches beside the exact answer take no more time than the contract's limits give them."""

from __future__ import annotations

import datetime
import re

import msgspec

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Verdict
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
