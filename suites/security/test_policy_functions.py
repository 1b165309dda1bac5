"""What policies call: asked once for a statement, and anew for every statement."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from pgconform.callees import functions_behind
from pgconform.catalog import Catalog, Function
from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, check
from pgconform.contract import Contract
from pgconform.expressions import per_row_calls, shape
from pgconform.model import Finding, NotVerified, Severity
from pgconform.names import quote
from pgconform.policy_cases import Case, Placed, once, policies
from pgconform.policy_conditions import asked_once, keeps
from pgconform.remedies_policies import retie


@once
def _keeping(case: Case) -> list[tuple[Function, str]]:
    """The functions behind the policy that may say what they found before, each with the reason."""
    behind = [f for text in case.texts for f in functions_behind(shape(text, case.table), case.catalog)]
    return [(f, why) for f in {f.signature: f for f in behind}.values() if (why := keeps(f))]


@check("policy-functions-current", guide=["vs-14", "muva-42"], when=["gate", "quarterly"], of=policies)
def test_policies_ask_anew_every_time(subject: Placed, catalog: Catalog, contract: Contract) -> Iterator[Finding]:
    """No function behind a policy answers one caller with what it found for another.

    The planner folds an immutable function into a plan, and plans are kept; a setting of the session stays when a
    pooler hands the connection on.
    """
    table, policy, case = subject
    for function, why in _keeping(case):
        stable = f"alter function {function.signature} stable;"
        remedy = stable if function.volatility == "i" else retie(catalog, contract, table, policy)
        observed = f"policy {quote(policy.name)} calls {function.signature}, which {why}"
        yield Finding(str(table), observed, remedy, detail=f"{quote(policy.name)} {function.signature}")


@cache
def _reviews() -> tuple[Check, ...]:
    """Checks that judge the same policies, and must pass."""
    return tuple(c for c in load().values() if c.select is policies and c.severity is Severity.MUST)


def _condemned(subject: Placed, evidence: Evidence) -> bool:
    """True where a review that must pass finds the policy at fault: what it says now is not to be written again."""
    for review in _reviews():
        with suppress(NotVerified):
            parts = {name: evidence.part(name) for name in review.asks}
            if any(True for _ in review.judge(subject, **parts)):
                return True
    return False


@check("policy-asks-once", guide=["vs-14"], when=["weekly", "quarterly"], of=policies, severity=Severity.SHOULD)
def test_policies_ask_who_is_there_once(subject: Placed, evidence: Evidence) -> Iterator[Finding]:
    """Policies ask who the caller is once for a statement, in a scalar subquery, not once for each row.

    On a large table the same call for every row is most of the time that a query takes.
    """
    table, policy, case = subject
    if any(per_row_calls(text) for text in case.texts):
        parts = [("using", policy.using), ("with check", policy.check)]
        changed = " ".join(f"{word} ({asked_once(text, evidence.catalog)})" for word, text in parts if text)
        remedy = f"alter policy {quote(policy.name)} on {table} {changed};"
        if _condemned(subject, evidence):
            remedy = retie(evidence.catalog, evidence.contract, table, policy)
        yield Finding(str(table), f"policy {quote(policy.name)} asks for each row", remedy, detail=quote(policy.name))
