"""Words that several reports share: text that no reader takes for markup or control, and what stayed unverified."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pgconform.model import Verdict

if TYPE_CHECKING:
    from pgconform.model import Finding, Result
    from pgconform.results import Run

# Control characters, and those that turn the direction of what follows: a name must not disguise another.
_HIDDEN = dict.fromkeys(
    [*(set(range(0x20)) - {9, 10}), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)],
    "\ufffd",
)


def plain(value: object) -> str:
    """The text as any reader may have it: what none should hold is U+FFFD, a lone surrogate a question mark."""
    return str(value).translate(_HIDDEN).encode("utf-8", "replace").decode()


_SHOWN = 10


def restores(run: Run) -> Iterator[str]:
    """How long each restore took, how fast it was, and what of other schemas was lost with a schema."""
    for result in run.results:
        for took, speed in pairwise(result.figures):
            what = took.name.removeprefix("restore of ")
            if what != took.name:
                part = "" if what in (result.contract, took.name) else f", {what}"
                measured = f"{took.value:,} {took.unit}, {speed.value:,} {speed.unit}"
                yield f"{result.contract}{part}: dumped and restored: {measured}"
        beside = [figure.name for figure in result.figures if figure.name.startswith("outside of schema ")]
        yield from (f"{result.contract}: {name}" for name in beside[:_SHOWN])
        if (more := len(beside) - _SHOWN) > 0:
            yield f"{result.contract}: and {more} more outside of the schema, as findings.json has them"


def unverified(result: Result) -> list[tuple[str, str]]:
    """Subject and reason of each part of the result that could not be verified."""
    if result.unverified:
        return list(result.unverified)
    return [(result.subject, result.reason)] if result.verdict is Verdict.BROKEN else []


def unexamined(result: Result) -> str:
    """Why a skipped check examined nothing, in one sentence."""
    return f"nothing was examined: {result.reason.removeprefix('nothing to examine: ')}"


def worst_first(run: Run) -> Iterator[tuple[str, Result, Finding | None, str]]:
    """What a reader acts on, as level (error or warning or notice), result, finding and text: failures, what could not
    be verified, what was not examined, advice, waived findings."""
    parts: dict[str, list[tuple[str, Result, Finding | None, str]]] = {k: [] for k in ("f", "b", "s", "a", "w")}
    for result in run.results:
        for finding in result.findings:
            fails = run.gates(result)
            level = "error" if fails else "warning"
            parts["f" if fails else "a"].append((level, result, finding, f"{finding.key}: {finding.told}"))
        for subject, reason in unverified(result):
            text = f"{subject or result.contract}: could not be verified: {reason}"
            parts["b"].append(("error", result, None, text))
        if result.verdict is Verdict.SKIPPED and not result.accepted:
            parts["s"].append(("warning", result, None, unexamined(result)))
        for finding, waiver in result.waived:
            parts["w"].append(("notice", result, finding, f"{finding.key}: waived: {waiver}"))
    for entries in parts.values():
        yield from entries
