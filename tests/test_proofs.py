"""Every check is proven: its faults are found, with exactly the declared findings over all checks; its decoys are
not; and the printed remedies, executed, bring silence."""

from __future__ import annotations

import datetime
import re

import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Finding, Severity
from tests.committing import prove_committed
from tests.conftest import Connect
from tests.proving import (
    FAULTS,
    Fault,
    broken,
    contract_of,
    faults,
    forget,
    found,
    judge,
    prove,
    read,
    run_remedy,
    transaction,
    untouched,
)


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


@pytest.mark.parametrize("name", ["prefix", "membership"])
def test_advice_brings_back_nothing_that_was_mended(connect: Connect, name: str) -> None:
    """Whoever pastes what a report prints may well begin with what must be mended, and end with advice."""
    fault = read(FAULTS / "policy-asks-once" / f"{name}.sql")
    connection, contract = connect(fault.contract), contract_of(fault.contract, fault.promise)
    with transaction(connection, contract):
        reference = untouched(connection, contract)
        connection.execute(fault.sql.encode())
        findings = found(judge(connection, contract, reference, fault.finds))
        assert set(findings) == fault.finds
        for key in sorted(findings, key=lambda key: load()[key.split(": ")[0]].severity is Severity.SHOULD):
            run_remedy(connection, findings[key].remedy)
        assert found(judge(connection, contract, reference, fault.finds)) == {}


def test_a_helper_that_forgets_is_found_before_anybody_is_suspended_and_mended_in_place(connect: Connect) -> None:
    """The review needs no rows to see it, and the contract's definition alone replaces it under its policies."""
    fault = read(FAULTS / "policy-members-current" / "helper-declared.sql")
    connection, contract = connect(fault.contract), contract_of(fault.contract, fault.promise)
    check = load()[fault.check]

    def findings() -> tuple[Finding, ...]:
        now, database = datetime.date(2026, 11, 1), Database(connection)
        return tuple(evaluate(check, Evidence(contract, snapshot(connection), database, now)).findings)

    with transaction(connection, contract):
        connection.execute("update public.org_users set is_active = true")
        connection.execute(fault.sql.encode())
        (finding,) = findings()
        assert finding.remedy.startswith("create or replace function auth.my_orgs()")
        connection.execute(finding.remedy.encode())
        assert findings() == ()


def test_isolation_is_proven_by_many_kinds_of_faults() -> None:
    """Each of these faults is found by a session or an attempt, and every check that makes some finds one."""
    attacked = _attacked()
    assert len(attacked) >= 60
    assert len({fault.check for fault in attacked}) >= 25
    assert attempts() <= {check for fault in attacked for check in checks(fault)}


def test_what_attempts_find_the_review_finds_too_or_cannot() -> None:
    """Of each isolation fault the review of the catalogue says something, or its header says why nothing can be seen
    there; and no header says so where something is."""
    reviewed = {fault.name: bool(checks(fault) & reviews()) for fault in _attacked()}
    excused = {fault.name for fault in faults() if fault.review}
    assert excused == {name for name, seen in reviewed.items() if not seen}
    assert all(re.match("none, because .{20,}", fault.review) for fault in faults() if fault.review)


def attempts() -> set[str]:
    """Checks that look at what sessions see and can do."""
    return {check.id for check in load().values() if ".isolation." in check.module}


def reviews() -> set[str]:
    """Checks that look at the catalogue, and that the contract or the guides want to pass: no advice."""
    kinds = (".security.", ".schema.")
    return {c.id for c in load().values() if any(k in c.module for k in kinds) and c.severity is not Severity.SHOULD}


def checks(fault: Fault) -> set[str]:
    return {key.split(": ")[0] for key in fault.finds}


def _attacked() -> list[Fault]:
    return [fault for fault in faults() if checks(fault) & attempts()]
