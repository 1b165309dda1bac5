"""Every check is proven: its faults are found, with exactly the declared findings over all checks; its decoys are
not; and the printed remedies, executed, bring silence."""

from __future__ import annotations

import pytest

from pgconform.catalogue_of_checks import load
from tests.committing import prove_committed
from tests.conftest import Connect
from tests.proving import Fault, broken, contract_of, faults, forget, found, judge, prove, transaction


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_all_checks_are_silent_on_the_reference_databases(connect: Connect, name: str) -> None:
    contract = contract_of(name)
    forget(connect(name))
    with transaction(connect(name), contract):
        results = judge(connect(name), contract)
    assert found(results) == {}
    assert broken(results) == []


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_faults_are_found_and_remedied_and_decoys_are_not(
    request: pytest.FixtureRequest, connect: Connect, fault: Fault
) -> None:
    if fault.committed:
        prove_committed(request.getfixturevalue(fault.server or "references"), fault)
    else:
        prove(connect(fault.contract), fault)


def test_isolation_is_proven_by_many_kinds_of_faults() -> None:
    """Each found by an attempt; where one belongs to the review of the catalogue, by that, too."""
    attempts = {check.id for check in load().values() if ".isolation." in check.module}
    found_by = {fault.name: {key.split(": ")[0] for key in fault.finds} for fault in faults()}
    attacked = {name: checks for name, checks in found_by.items() if checks & attempts}
    kinds = {name.split("/")[0] for name in attacked}
    assert len(attacked) >= 60
    assert len(kinds) >= 25
    reviewed = {name for name in attacked if name.split("/")[0] not in attempts}
    assert all(name.split("/")[0] in attacked[name] for name in reviewed)
    assert attempts <= set().union(*attacked.values())
