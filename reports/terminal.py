"""The summary at the end of a run: counts by verdict, then each finding with object, observation and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.judging import text
from pgconform.model import Verdict
from pgconform.results import CONFORMS

if TYPE_CHECKING:
    from pgconform.results import Run

_ORDER = (Verdict.FAILED, Verdict.BROKEN, Verdict.WAIVED, Verdict.SKIPPED, Verdict.PASSED)
_SHOWN = 5  # names of one kind that a line lists


def lines(run: Run, full: bool) -> Iterator[tuple[str, str]]:
    """Lines with their styles; ``full`` lists findings, which pytest itself shows otherwise."""
    status, reason = run.status()
    yield "", ""
    for contract in run.contracts:
        mine = [r for r in run.results if r.contract == contract.name]
        counted: dict[str, int] = {str(v): sum(r.verdict is v for r in mine) for v in _ORDER}
        counted["advice"] = sum(r.verdict is Verdict.FAILED and not r.gates for r in mine)
        counted["failed"] -= counted["advice"]
        facts = run.facts.get(contract.name, "")
        counts = ", ".join(f"{n} {v}" for v, n in counted.items() if n) or "nothing judged"
        yield f"{contract.name}{f' ({facts})' if facts else ''}: {counts}", "bold"
    for result in run.results if full else ():
        if result.verdict is Verdict.FAILED:
            style = "red" if result.gates else "yellow"
            where = result.contract + (f", {result.subject}" if result.subject else "")
            yield "", ""
            for number, line in enumerate(text(result).splitlines()):
                yield (
                    (f"{line}  [{where}; {', '.join(result.guide)}]" if not number else line),
                    (style if not number else ""),
                )
    for result in run.results:
        for finding, waiver in result.waived:
            yield f"waived: {result.check}: {finding.key}: {waiver}", "yellow"
        if result.verdict is Verdict.SKIPPED and not result.accepted:
            where = f"{result.contract}{f', {result.subject}' if result.subject else ''}"
            yield f"skipped: {result.check} [{where}]: {result.reason}", "yellow"
    yield from _unverified(run)
    yield "", ""
    yield f"exit {status}: {reason}", "green bold" if status == CONFORMS else "red bold"


def _unverified(run: Run) -> Iterator[tuple[str, str]]:
    """One block for each reason: a missing grant keeps a hundred checks from being verified."""
    checks: dict[str, list[str]] = {}
    for result in run.results:
        for subject, reason in result.unverified:
            checks.setdefault(reason, []).append(f"{result.check} {subject}")
        if result.verdict is Verdict.BROKEN and not result.unverified:
            checks.setdefault(result.reason, []).append(result.check)
    for reason, names in checks.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield "", ""
        yield f"not verified: {reason}", "red"
        yield f"  {', '.join(names[:_SHOWN])}{more}", ""
