"""What policies call: asked once for a statement, and anew for every statement."""

import re
from collections.abc import Iterator

from pgconform.callees import functions_behind
from pgconform.catalog import Catalog, Function, Policy, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.expressions import per_row_calls, shape
from pgconform.model import Finding, Severity
from pgconform.names import quote
from pgconform.remedies import retie
from pgconform.subjects import policies

# Whatever else a body does: it reads a session, a table, or the clock.
_CHANGING = re.compile(r"\b(current_setting|from|auth|now|current_\w+|session_user)\b", re.IGNORECASE)
_KEEPING = re.compile(r"\bset_config\s*\([^;]*?,\s*false\s*\)|\bset\s+session\s+", re.IGNORECASE)
# Calls without arguments, and settings that are read.
_ONE_CALL = re.compile(r"\bauth\.\w+\(\)|\bcurrent_setting\('(?:[^']|'')*'(?:::text)?(?:, (?:true|false))?\)")


def _texts(policy: Policy) -> list[str]:
    return [text for text in (policy.using, policy.check) if text]


def _keeps(function: Function) -> str:
    """Why what a function says may outlive the statement that asked; '' where it does not."""
    if function.volatility == "i" and _CHANGING.search(function.body):
        return "is called immutable, and reads what changes"
    return "keeps what it found for the whole session" if _KEEPING.search(function.body) else ""


def _once(text: str) -> str:
    return _ONE_CALL.sub(r"(select \g<0>)", text)


@check("policy-functions-current", guide=["vs-14", "muva-42"], when=["gate", "quarterly"], of=policies)
def test_policies_ask_anew_every_time(
    subject: tuple[Table, Policy], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """No function behind a policy answers one caller with what it found for another.

    The planner folds an immutable function into a plan, and plans are kept; a setting of the session stays when a
    pooler hands the connection on.
    """
    table, policy = subject
    behind = [f for text in _texts(policy) for f in functions_behind(shape(text, table.name), catalog)]
    for function in {f.signature: f for f in behind}.values():
        if why := _keeps(function):
            stable = f"alter function {function.signature} stable;"
            remedy = stable if function.volatility == "i" else retie(catalog, contract, table, policy)
            observed = f"policy {quote(policy.name)} calls {function.signature}, which {why}"
            yield Finding(str(table), observed, remedy, detail=f"{quote(policy.name)} {function.signature}")


@check("policy-asks-once", guide=["vs-14"], when=["weekly", "quarterly"], of=policies, severity=Severity.SHOULD)
def test_policies_ask_who_is_there_once(subject: tuple[Table, Policy]) -> Iterator[Finding]:
    """Policies ask who the caller is once for a statement, in a scalar subquery, not once for each row.

    On a large table the same call for every row is most of the time that a query takes.
    """
    table, policy = subject
    if any(per_row_calls(text) for text in _texts(policy)):
        parts = [("using", policy.using), ("with check", policy.check)]
        changed = " ".join(f"{word} ({_once(text)})" for word, text in parts if text)
        remedy = f"alter policy {quote(policy.name)} on {table} {changed};"
        yield Finding(str(table), f"policy {quote(policy.name)} asks for each row", remedy, detail=quote(policy.name))
