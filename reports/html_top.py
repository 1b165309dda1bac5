"""The top of report.html: verdict, what changed since the last run, waivers that end, and the bar that filters."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.changes import changes
from pgconform.results import CONFORMS

from .html_words import FOLDED, OPEN, SPOKEN, heading, kind, link, text

if TYPE_CHECKING:
    from pgconform.results import Run

SOON = 30  # days before its end from which a waiver is shown
CHANGES = 50  # that are listed


def head(run: Run) -> Iterator[str]:
    """The verdict, what was judged, and what a reader should know before all findings."""
    status, reason = run.status()
    mood = "good" if status == CONFORMS else "bad"
    yield f'<main><div class="verdict {mood}"><h1>{text(reason)}</h1>'
    for contract in run.contracts:
        counted = Counter(kind(result) for result in run.results if result.contract == contract.name)
        told = [f"{counted[each]} {SPOKEN.get(each, each)}" for each in (*OPEN, *FOLDED) if counted[each]]
        facts = f" ({text(run.facts[contract.name])})" if contract.name in run.facts else ""
        yield f"<div><b>{text(contract.title or contract.name)}</b>{facts}: {', '.join(told) or 'nothing judged'}</div>"
    took = f", {(run.finished - run.started).total_seconds():.0f} s" if run.finished else ""
    effort = f"effort {run.effort.level}, seed {run.effort.seed}"
    yield f'<div class="tag">{run.started:%Y-%m-%d %H:%M} UTC{took}; exit {status}; {effort}</div></div>'
    for note in [*run.incomplete(), *run.notes(), *run.remarks()]:
        yield f'<p class="warn" role="alert">{text(note)}</p>'


def changed(run: Run) -> Iterator[str]:
    """What is found and was not, what is gone, and what cannot be verified any more, since the last run."""
    if not run.past:
        return
    yield heading("changes", "Changes since the last run")
    said = list(_changes(run))
    since = max(past.started for past in run.past.values())
    when = datetime.datetime.fromtimestamp(since, datetime.UTC)
    yield f'<p class="tag">of the same database, on {when:%Y-%m-%d %H:%M} UTC; where this run asked, too</p>'
    if not said:
        yield "<p>None.</p>"
    else:
        yield f'<ul class="few">{"".join(said[:CHANGES])}</ul>'
        yield f"<p>and {len(said) - CHANGES} more</p>" if len(said) > CHANGES else ""


def _changes(run: Run) -> Iterator[str]:
    for change in changes(run):
        told = f"<b>{change.kind}</b>" if change.worse else change.kind
        name = f'<a href="#{link(change.result)}">{text(change.result.check)}</a>'
        yield f"<li>{told}: {name}: {text(change.key)}</li>"


def waivers(run: Run) -> Iterator[str]:
    """Those that end within a month; those that have ended are findings."""
    today = run.started.date()
    soon = [w for c in run.contracts for w in c.waivers if 0 <= (w.until - today).days <= SOON]
    if soon:
        yield heading("waivers", "Waivers about to end")
        yield '<div class="wide"><table><tr><th>until<th>check<th>object<th>owner<th>reason</tr>'
        for waiver in sorted(soon, key=lambda w: w.until):
            cells = (waiver.until, waiver.check, waiver.object, waiver.owner, waiver.reason)
            yield "<tr>" + "".join(f"<td>{text(cell)}" for cell in cells) + "</tr>"
        yield "</table></div>"


def bar(page: str) -> str:
    """The filter, and the contents of the page: a link for each of its headings."""
    options = "".join(f'<option value="{each}">{SPOKEN.get(each, each)}</option>' for each in (*OPEN, *FOLDED))
    found = re.findall(r'<h2 id="([^"]*)">([^<]*)</h2>', page)
    return (
        '<div class="bar"><div role="search"><input id="text" type="search" placeholder="filter by words  ( / )"'
        ' aria-label="filter by words"><select id="verdict" aria-label="filter by verdict">'
        f'<option value="">all</option>{options}</select>'
        '<output id="count" class="tag" aria-live="polite"></output></div>'
        f'<nav aria-label="contents">{"".join(f"<a href=#{id}>{title}</a>" for id, title in found)}</nav></div>'
    )
