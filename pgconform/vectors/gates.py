"""What must hold of a measured search: by the contract alone, and beside a baseline. Pure functions.

The bounds come from repeated measurements of pgvector 0.8: recall varies by a standard deviation of 0.012 when
an index is built anew, pages touched by 1-5 % (hnsw) and 4-15 % (ivfflat); the time of a search beside a calibration
of several rounds varies by 1-12 %, and a search is slower only if five measurements in a row say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pgconform.contract_vectors import Search
    from pgconform.vectors.measuring import Measured

SLOWER, RERUNS = 1.3, 4
MORE_BUFFERS = {"hnsw": 1.1, "ivfflat": 1.25}
LESS_RECALL = 0.05  # four standard deviations
GUARD = 3.0  # times a promised latency: other work on the machine is no fault
LIKE = 0.1  # share by which rows may differ, so that pages touched can be compared
# Below these a difference is no matter: pages, and calibrations (of about half a millisecond each).
FEW_BUFFERS, BRIEF = 8, 0.1
USED = 0.5  # share of executions that scan the index


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one case: ``kind`` is one word or two, ``cause`` and ``remedy`` are found later."""

    case: str
    kind: str
    observed: str
    cause: str = ""
    remedy: str = ""


def promised(found: Measured, spec: Search) -> Iterator[Problem]:
    """What breaks the contract."""

    def problem(kind: str, observed: str) -> Problem:
        return Problem(found.case, kind, observed)

    if found.foreign:
        yield problem("foreign rows", f"{found.foreign} row(s) returned are not the caller's own")
    if found.under:
        yield problem("threshold", f"{found.under} row(s) returned are under the threshold")
    if found.unordered:
        yield problem("order", f"{found.unordered} of {found.queries} queries return rows that are not nearest first")
    if found.misjudged:
        yield problem("similarity", f"{found.misjudged} row(s) returned have another similarity than the exact one")
    if found.short:
        told = f"{found.returned:.1f} rows of {found.expected:.1f} on average"
        yield problem("rows", f"{found.short} of {found.queries} queries return fewer rows than qualify: {told}")
    if found.over:
        yield problem("count", f"{found.over} of {found.queries} queries return more rows than were asked for")
    if found.repeated:
        yield problem("count", f"{found.repeated} row(s) returned are returned more than once")
    if found.recall < spec.recall:
        yield problem("recall", f"recall {found.recall:.3f}, promised {spec.recall:g}")
    if found.scanned > USED > found.scanned_later:
        told = "the first five executions scan the vector index, later ones do not"
        yield problem("generic plan", told)
    elif found.rows >= spec.index_from and found.scanned_later < USED:
        yield problem("index", f"no vector index is scanned, for a caller with {found.rows} rows")
    if found.p95 > GUARD * spec.latency_ms:
        told = f"95 % take up to {found.p95:.0f} ms, {GUARD:g} times the promised {spec.latency_ms:g} ms or more"
        yield problem("latency", told)


def compared(
    found: Measured, base: Measured, alike: bool, again: Callable[[], float] | None = None
) -> Iterator[Problem]:
    """What is worse than in the baseline; pages are compared only where it was measured in circumstances ``alike``.

    ``again`` measures the ratio anew: a search is slower only if all reruns say so. Milliseconds are never compared: on
    an idle machine the 95th percentile of 40 short searches trebles now and then. That a search scans other things than
    it did is no problem by itself, but the cause of one.
    """
    cause = f"a search scans: {found.plan}; in the baseline: {base.plan}" if found.plan != base.plan else ""

    def problem(kind: str, observed: str) -> Problem:
        return Problem(found.case, kind, observed, cause)

    if base.scanned_later >= USED > found.scanned_later and found.scanned <= USED:
        yield problem("index", "no vector index is scanned; in the baseline one is")
    elif found.rows and base.method and not found.method:  # also where so few rows were read without it
        told = "there is no approximate index, valid and for this distance"
        yield problem("index", f"{told}; in the baseline there is one ({base.method})")
    if found.recall < base.recall - LESS_RECALL:
        yield problem("recall", f"recall {found.recall:.3f}, in the baseline {base.recall:.3f}")
    allowed = MORE_BUFFERS.get(base.method, max(MORE_BUFFERS.values()))
    sizes = ((found.rows, base.rows), (found.total, base.total or found.total))
    grown = any(abs(now - then) > LIKE * then for now, then in sizes)
    same = alike and not grown and found.asking == base.asking
    if same and found.buffers > allowed * base.buffers + FEW_BUFFERS:
        yield problem("buffers", f"{found.buffers:.0f} pages are touched, in the baseline {base.buffers:.0f}")
    # No search need become slower by more than the number of rows grows.
    expected = base.ratio * max([1.0, *(now / then for now, then in sizes if then)])
    ratios = [found.ratio]
    while _slower(ratios[-1], expected) and again and len(ratios) <= RERUNS:
        ratios.append(again())
    if _slower(min(ratios), expected):
        told = f"takes {min(ratios):.2f} calibrations, in the baseline {base.ratio:.2f}"
        yield problem("time", f"{told} ({len(ratios)} measurements)")


def _slower(ratio: float, base: float) -> bool:
    return ratio > SLOWER * base + BRIEF
