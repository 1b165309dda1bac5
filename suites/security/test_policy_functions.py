"""What policies call: asked once for a statement, and anew for every statement."""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from pgconform.bodies import code
from pgconform.callees import functions_behind
from pgconform.catalog import Catalog, Function
from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, check
from pgconform.contract import Contract
from pgconform.expressions import per_row_calls, shape
from pgconform.model import Finding, NotVerified, Severity
from pgconform.names import quote
from pgconform.policy_cases import Case, Placed, once, policies
from pgconform.remedies_policies import retie

# A body that reads a session, a table, or the clock.
_CHANGING = re.compile(
    r"\b(?:current_setting|auth\s*\.|now\s*\(|current_\w+|session_user|clock_timestamp)"
    r"|(?<!distinct )\b(?:from|join)\s+(?!unnest\b|generate_)[\w\"]+(?!\s*[(\w\".]*\))",
    re.IGNORECASE,
)
_KEEPING = re.compile(r",\s*false\s*\)$|^set\s+session\b", re.IGNORECASE)
_SETTING = re.compile(r"\bset_config\s*\(|\bset\s+session\b", re.IGNORECASE)
# Calls without arguments, and settings that are read.
_ONE_CALL = re.compile(
    r"(\bauth\.\w+\(\)|\bcurrent_setting\('(?:[^']|'')*'(?:::text)?(?:, (?:true|false))?\))|'(?:[^']|'')*'"
)


def _keeps(function: Function) -> str:
    """Why what a function says may outlive the statement that asked; '' where it does not."""
    text = code(function.body)
    if function.volatility == "i" and _CHANGING.search(text):
        return "is called immutable, and reads what changes"
    kept = any(_KEEPING.search(_call(text, found.start())) for found in _SETTING.finditer(text))
    return "keeps what it found for the whole session" if kept else ""


def _call(text: str, start: int) -> str:
    """The call that begins there, up to its closing parenthesis."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0 and text[position] in ");":
            return text[start : position + 1]
    return text[start:]


def _once(text: str) -> str:
    return _ONE_CALL.sub(lambda found: f"(select {found[1]})" if found[1] else found[0], text)


@once
def _keeping(case: Case) -> list[tuple[Function, str]]:
    """The functions behind the policy that may say what they found before, each with the reason."""
    behind = [f for text in case.texts for f in functions_behind(shape(text, case.table), case.catalog)]
    return [(f, why) for f in {f.signature: f for f in behind}.values() if (why := _keeps(f))]


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
        changed = " ".join(f"{word} ({_once(text)})" for word, text in parts if text)
        remedy = f"alter policy {quote(policy.name)} on {table} {changed};"
        if _condemned(subject, evidence):
            remedy = retie(evidence.catalog, evidence.contract, table, policy)
        yield Finding(str(table), f"policy {quote(policy.name)} asks for each row", remedy, detail=quote(policy.name))
