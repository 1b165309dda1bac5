"""comment.md: the run for a comment on a pull request. Verdict, changes, findings, and what was not verified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.changes import changes
from pgconform.model import Verdict
from pgconform.results import CONFORMS

from .plain import plain, restores, worst_first

if TYPE_CHECKING:
    from pgconform.results import Run

LARGEST = 60_000  # bytes; a comment on GitHub may have 65,536 characters
CHANGES = 20  # that are listed
_LONGEST = 300  # characters of a cell
# What makes markup, a mention, or a link of bare text.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~@#&$]|:(?=//)|(?<=www)\.)")


def render(run: Run) -> str:
    """The run as Markdown, within what a comment may hold."""
    return table_of(run, LARGEST)


def table_of(run: Run, largest: int) -> str:
    """The run as Markdown of at most so many bytes; says how many lines were left out."""
    head, rows = list(_head(run)), list(_rows(run))
    if rows:
        head += ["", "| | check | what |", "|---|---|---|"]
    room = largest - len("\n".join(head).encode()) - 200
    kept: list[str] = []
    for row in rows:
        room -= len(row.encode()) + 1
        if room < 0:
            break
        kept.append(row)
    more = ["", f"and {len(rows) - len(kept)} more, in findings.json"] if len(kept) < len(rows) else []
    return "\n".join([*head, *kept, *more, ""])


def cell(text: str) -> str:
    """Text for one cell: one line, nothing in it is markup, a mention or a link."""
    one = " ".join(plain(text).split())
    return _MARKUP.sub(r"\\\1", one if len(one) <= _LONGEST else f"{one[:_LONGEST]}...")


def _head(run: Run) -> Iterator[str]:
    status, reason = run.status()
    yield f"### pgconform: {'✅' if status == CONFORMS else '❌'} {cell(reason)}"
    yield ""
    for contract in run.contracts:
        counted = {v: sum(r.verdict is v and r.contract == contract.name for r in run.results) for v in Verdict}
        counts = ", ".join(f"{number} {verdict}" for verdict, number in counted.items() if number) or "nothing judged"
        facts = f" ({cell(run.facts[contract.name])})" if contract.name in run.facts else ""
        yield f"- **{cell(contract.title or contract.name)}**{facts}: {counts}"
    for text in restores(run):
        yield f"- {cell(text)}"
    for text in [*run.incomplete(), *run.notes(), *run.remarks()]:
        yield f"- ⚠️ {cell(text)}"
    if changed := [f"- {c.kind}: {cell(c.result.check)}: {cell(c.key)}" for c in changes(run)]:
        yield from ("", "Changes since the last run of the same database:", "", *changed[:CHANGES])
        if len(changed) > CHANGES:
            yield f"- and {len(changed) - CHANGES} more"


def _rows(run: Run) -> Iterator[str]:
    marks = {"error": "❌", "warning": "⚠️", "notice": "waived"}
    for level, result, _, text in worst_first(run):
        yield f"| {marks[level]} | {cell(result.check)} | {cell(text)} |"
