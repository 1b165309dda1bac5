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

_ABSENT, _REFUSED = " does not exist", " refuses the call, which search-results finds"


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


class Skips:
    """What the results of one run say of each other: gathered once, since there may be many thousands."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._said: dict[tuple[str, str], set[tuple[Verdict, str]]] = {}
        self._missed: dict[str, set[str]] = {}
        for result in run.results:
            self._said.setdefault((result.contract, result.check), set()).add((result.verdict, result.reason))
            missed = self._missed.setdefault(result.contract, set())
            if named := _MISSED.get(result.check):
                missed.update(name + _ABSENT for finding in result.findings for name in named(finding))
            elif result.check == "search-results":
                missed.update(finding.object + _REFUSED for finding in result.findings)

    def unaccepted(self, contract: str) -> list[Result]:
        """The contract's cases that examined nothing, where it does not say that this is right."""
        mine = (result for result in self._run.results if result.contract == contract)
        return [result for result in mine if result.verdict is Verdict.SKIPPED and not result.accepted]

    def line(self, result: Result) -> str:
        """The line under [skips]: for the whole check only where none of its cases examined anything, or says
        otherwise."""
        alike = len(self._said[result.contract, result.check]) == 1
        key = result.check if alike or not result.subject else _text(f"{result.check}:{result.subject}")
        return f"{key} = {_text(result.reason)}"

    def explained(self, result: Result) -> bool:
        """True where it examined nothing for the only reason that what it is about is missing, or refuses to be called,
        as a finding of this run says: that is to be mended, and is no case for [skips]."""
        return set(result.reason.split("; ")) <= self._missed[result.contract]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
