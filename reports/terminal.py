"""The summary at the end of a run: counts by verdict, then each finding with object, observation and remedy."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.checks import COPIED, DRILL
from pgconform.guides import rows_of
from pgconform.judging import text
from pgconform.model import Verdict
from pgconform.results import CONFORMS

from .github import commands
from .plain import restores
from .skips import Skips

if TYPE_CHECKING:
    from pgconform.results import Run

_ORDER = (Verdict.FAILED, Verdict.BROKEN, Verdict.WAIVED, Verdict.SKIPPED, Verdict.PASSED)
_SHOWN = 5  # names of one kind that a line lists


def lines(run: Run, full: bool, annotated: bool = False) -> Iterator[tuple[str, str]]:
    """Lines with their styles; ``full`` lists findings, which pytest itself shows otherwise; ``annotated`` adds the
    commands by which GitHub shows findings beside the contract's lines."""
    status, reason = run.status()
    if annotated:  # until the token is repeated, nothing that a name of the database holds is taken for a command
        token = secrets.token_hex(16)
        yield f"::stop-commands::{token}", ""
    yield "", ""
    for contract in run.contracts:
        mine = [r for r in run.results if r.contract == contract.name]
        counted: dict[str, int] = {str(v): sum(r.verdict is v for r in mine) for v in _ORDER}
        counted["advice"] = sum(r.verdict is Verdict.FAILED and not r.gates for r in mine)
        counted["failed"] -= counted["advice"]
        facts = run.facts.get(contract.name, "")
        counts = ", ".join(f"{n} {v}" for v, n in counted.items() if n) or "nothing judged"
        yield f"{contract.name}{f' ({facts})' if facts else ''}: {counts}", "bold"
    yield from ((text, "") for text in restores(run))
    yield from _attacks(run)
    for result in run.results if full else ():
        if result.verdict is Verdict.FAILED:
            style = "red" if result.gates else "yellow"
            where = result.contract + (f", {result.subject}" if result.subject else "")
            guide = next((c.guide for c in run.contracts if c.name == result.contract), "")
            rows = ", ".join(row.id for row in rows_of(guide, result.guide))
            yield "", ""
            for number, line in enumerate(text(result).splitlines()):
                yield (
                    (f"{line}  [{where}{f'; {rows}' if rows else ''}]" if not number else line),
                    (style if not number else ""),
                )
    for result in run.results:
        for finding, waiver in result.waived:
            yield f"waived: {result.check}: {finding.key}: {waiver}", "yellow"
    yield from _skipped(run)
    yield from _unverified(run)
    for remark in run.remarks():
        yield remark, "yellow"
    for note in run.notes():
        yield "", ""
        yield note, "red bold"
    if annotated:
        yield f"::{token}::", ""
        yield from ((command, "") for command in commands(run))
    yield "", ""
    yield f"exit {status}: {reason}", "green bold" if status == CONFORMS else "red bold"


def _attacks(run: Run) -> Iterator[tuple[str, str]]:
    """How many attempts drills made, how fast one connection made them, and what makes the same ones again."""
    made = sum(result.attempts for result in run.results)
    if made:
        seconds = sum(result.seconds for result in run.results if result.attempts)
        rate = f"{made:,} attempts in {seconds:.1f} s ({made / max(seconds, 1e-9):,.0f}/s)"
        yield f"attacks: {rate}, effort {run.effort.level}, seed {(n := run.effort.seed)}; --seed={n} replays them", ""


def _skipped(run: Run) -> Iterator[tuple[str, str]]:
    """What was not examined, though nobody said that this is right; and how to say so."""
    skips = Skips(run)
    for contract in run.contracts:
        mine = [r for r in run.results if r.contract == contract.name]
        empty = skips.unaccepted(contract.name)
        missing = [r for r in empty if skips.explained(r)]
        if found := dict.fromkeys(skips.line(r) for r in empty if not skips.explained(r)):
            yield "", ""
            yield f"{contract.name}: nothing to examine; where that is right, say so in the contract:", "yellow"
            yield "  [skips]", ""
            yield from ((f"  {proposed}", "") for proposed in found)
        if missing:
            names = [f"{r.check} {r.subject}".rstrip() for r in missing]
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            told = "not examined, since what they are about is missing, as findings say"
            yield f"{contract.name}: {told}: {', '.join(names[:_SHOWN])}{more}", "yellow"
        if drills := sorted({r.check for r in mine if r.verdict is Verdict.SKIPPED and r.reason == DRILL}):
            yield f"{contract.name}: not run, since a live target is never written: {', '.join(drills)}", ""
        if drills := sorted({r.check for r in mine if r.verdict is Verdict.SKIPPED and r.reason == COPIED}):
            yield f"{contract.name}: not run, unless asked for by --drill=restore: {', '.join(drills)}", ""


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
