"""Every check is proven: its faults are found, with exactly the declared findings over all checks; its decoys are
not; and the printed remedies, executed, bring silence."""

from __future__ import annotations

import pytest

from tests.conftest import Connect
from tests.proving import Fault, broken, contract_of, faults, found, judge, prove, transaction


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_all_checks_are_silent_on_the_reference_databases(connect: Connect, name: str) -> None:
    contract = contract_of(name)
    with transaction(connect(name), contract):
        results = judge(connect(name), contract)
    assert found(results) == {}
    assert broken(results) == []


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_faults_are_found_and_remedied_and_decoys_are_not(connect: Connect, fault: Fault) -> None:
    prove(connect(fault.contract), fault)
