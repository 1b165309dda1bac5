"""What a search benchmark found: a table of the cases, recall against time, and what is wrong with its remedy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgconform.vectors.bench import Outcome
    from pgconform.vectors.measuring import Measured
    from pgconform.vectors.sweep import Point

_HEAD = (
    f"{'rows':>7} {'found/wanted':>13} {'recall':>7} {'worst':>6} {'cold':>7} {'p50':>7} {'p95':>7} {'p99':>7}"
    f" {'ratio':>6} {'pages':>6} {'index':>6}  case"
)


FEW = 101  # of fewer searches, the 99th percentile is the slowest


def as_text(outcome: Outcome) -> str:
    """Times in milliseconds; ``ratio`` is in calibrations, ``index`` the share of searches that scanned one."""
    where = outcome.now.circumstances
    lines = [f"{outcome.contract}: PostgreSQL {where.server}, pgvector {where.pgvector}, {where.machine}", _HEAD]
    for found in outcome.now.cases.values():
        lines.append(
            f"{found.rows:>7} {found.returned:>6.1f}/{found.expected:<6.1f} {found.recall:>7.3f} {found.worst:>6.2f}"
            f" {found.cold:>7.1f} {found.p50:>7.2f} {found.p95:>7.2f} {found.p99:>7.2f} {found.ratio:>6.2f}"
            f" {found.buffers:>6.0f} {found.scanned_later:>6.0%}  {found.case}{_share(found)}"
        )
    lines += _notes(list(outcome.now.cases.values()))
    for function, points in outcome.curves.items():
        lines += ["", f"{function}: the index by its settings, recall of the worst and time of the slowest caller"]
        lines += [_point(point) for point in points] or ["  there is no approximate index"]
        if sql := outcome.advice.get(function):
            lines += [
                "  the cheapest with all rows and the promised recall:",
                *(f"    {line}" for line in sql.splitlines()),
            ]
        elif points:
            lines.append("  none was found that gives every caller all rows and the promised recall, by the index")
    if outcome.differences:
        what = ", ".join(outcome.differences)
        lines += ["", f"the baseline is of another class ({what}): times are compared as ratios, pages not at all"]
    lines += [f"not compared with the baseline: {case}" for case in outcome.uncompared]
    for problem in outcome.problems:
        lines += ["", f"{problem.kind}: {problem.case}: {problem.observed}"]
        lines += [f"  cause: {problem.cause}"] if problem.cause else []
        lines += [f"  {line}" for line in problem.remedy.splitlines()]
    lines += [f"not verified: {function}: {why}" for function, why in outcome.unverified.items()]
    lines += [f"not measured, the time was over: {what}" for what in outcome.left]
    return "\n".join(lines)


def _share(found: Measured) -> str:
    """What part of the rows is the caller's, and what other shares it stands for."""
    if not found.rows or not found.total or found.rows == found.total:
        return ""
    return f" ({found.rows / found.total:.1%} of the rows" + "".join(f"; as {share}" for share in found.also) + ")"


def _notes(cases: list[Measured]) -> Iterator[str]:
    """What the table has no room for: what searches scan, clients at once, and what a percentile is worth."""
    scans: dict[str, list[str]] = {}
    for found in cases:
        scans.setdefault(found.plan, []).append(found.case)
    yield from (f"a search scans: {plan} ({'; '.join(callers)})" for plan, callers in scans.items())
    for found in cases:
        for clients, load in found.clients.items():
            times = f"p50 {load.p50:.2f} ms, p95 {load.p95:.2f} ms"
            yield f"{clients} client(s) at once: {load.rate:.0f} searches/s, {times} ({found.case})"
    if empty := [found.case for found in cases if not found.expected]:
        yield f"no query has a row over the threshold, so that nothing is told of: {'; '.join(empty)}"
    if few := [found.samples for found in cases if found.samples < FEW]:
        yield f"p99 of {min(few)} searches is the slowest of them: ask {FEW} or more with --queries"


def _point(point: Point) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in point.settings.items())
    callers = f"{point.scanning} of {len(point.tried)} callers scan it"
    callers += f", {point.short} queries lack rows" if point.short else ""
    return f"  {point.least:.3f} {point.slowest.milliseconds:>8.2f} ms  {settings}; {callers}"


def as_json(outcomes: list[Outcome]) -> str:
    """Everything, for scripts."""
    told = [
        {
            "contract": outcome.contract,
            "circumstances": outcome.now.circumstances,
            "cases": list(outcome.now.cases.values()),
            "curves": outcome.curves,
            "advice": outcome.advice,
            "problems": outcome.problems,
            "unverified": outcome.unverified,
            "differences": outcome.differences,
            "uncompared": outcome.uncompared,
            "left": outcome.left,
        }
        for outcome in outcomes
    ]
    return json.dumps(msgspec.to_builtins(told), indent=1)
