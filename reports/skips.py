"""What a run did not examine though nobody said that this is right, and the lines of a contract that would say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgconform.model import Verdict
from pgconform.names import split

if TYPE_CHECKING:
    from pgconform.model import Finding, Result
    from pgconform.results import Run

_ABSENT = " does not exist"


def _column(finding: Finding) -> list[str]:
    column = split(finding.detail)[-1]
    return [f"{finding.object}, column {column}", f"a vector column {column} of {finding.object}"]


# The findings that say what is missing, and how reasons call that.
_MISSED: dict[str, Callable[[Finding], list[str]]] = {
    "tables-exist": lambda finding: [finding.object],
    "columns-exist": _column,
    "function-exists": lambda finding: [finding.object, f"{finding.object} with the declared arguments"],
    "function-signature": lambda finding: [f"{finding.object} with the declared arguments"],
}


def unaccepted(run: Run, contract: str) -> list[Result]:
    """The contract's cases that examined nothing, where it does not say that this is right."""
    return [r for r in run.results if r.contract == contract and r.verdict is Verdict.SKIPPED and not r.accepted]


def line(run: Run, result: Result) -> str:
    """The line under [skips]: for the whole check only where none of its cases examined anything, or says otherwise."""
    alike = all(
        other.verdict is Verdict.SKIPPED and other.reason == result.reason
        for other in run.results
        if (other.contract, other.check) == (result.contract, result.check)
    )
    narrow = result.subject and not alike
    key = _text(f"{result.check}:{result.subject}") if narrow else result.check
    return f"{key} = {_text(result.reason)}"


def explained(run: Run, result: Result) -> bool:
    """True where it examined nothing for the only reason that what it is about is missing, as a finding of this run
    says: that is to be mended, and is no case for [skips]."""
    missed = {
        name
        for other in run.results
        if other.contract == result.contract and other.check in _MISSED
        for finding in other.findings
        for name in _MISSED[other.check](finding)
    }
    return all(
        reason.endswith(_ABSENT) and reason.removesuffix(_ABSENT) in missed for reason in result.reason.split("; ")
    )


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
