"""report.html: one page for people, without any network. What a reader acts on comes first."""

from __future__ import annotations

import base64
import datetime
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pgconform import __version__
from pgconform.changes import changes
from pgconform.guides import rows_of
from pgconform.history import SEARCHES
from pgconform.model import Figure, Result, Verdict
from pgconform.names import qualified, split
from pgconform.results import CONFORMS

from .beside import sections
from .locks import lock
from .plain import plain
from .plots import line, strip

if TYPE_CHECKING:
    from pgconform.model import Finding
    from pgconform.results import Run

FEW = 5  # findings of one case that are shown; findings.json has all
SOON = 30  # days before its end from which a waiver is shown
CHANGES = 50  # that are listed
ROWS, COLUMNS = 40, 20  # of the table of findings: the relations and checks with the most
_TEMPLATES = Path(__file__).with_name("templates")


def render(run: Run) -> str:
    """The run as one HTML page of its own: verdict, changes, waivers, failures, and all the rest."""
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    names = ", ".join(contract.name for contract in run.contracts)
    body = "\n".join(
        [
            *_head(run),
            *_changes(run),
            *_waivers(run),
            *_bar(),
            *_sections(run),
            *_matrix(run),
            *sections(run.beside, {contract.name for contract in run.contracts}),
            *_figures(run),
            "</main>",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="pgconform {__version__}">
<title>{_text(names)}: {_text(run.status()[1])}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _text(value: object) -> str:
    """Escaped; what no page should hold shows as U+FFFD, a lone surrogate as a question mark."""
    return escape(plain(value))


def _head(run: Run) -> Iterator[str]:
    status, reason = run.status()
    mood = "good" if status == CONFORMS else "bad"
    yield f'<main><div class="verdict {mood}"><h1>{_text(reason)}</h1>'
    for contract in run.contracts:
        counts = [(v, sum(r.verdict is v and r.contract == contract.name for r in run.results)) for v in Verdict]
        told = ", ".join(f"{number} {verdict}" for verdict, number in counts if number) or "nothing judged"
        facts = f" ({_text(run.facts[contract.name])})" if contract.name in run.facts else ""
        yield f"<div><b>{_text(contract.title or contract.name)}</b>{facts}: {told}</div>"
    took = f", {(run.finished - run.started).total_seconds():.0f} s" if run.finished else ""
    effort = f"effort {run.effort.level}, seed {run.effort.seed}"
    yield f'<div class="tag">{run.started:%Y-%m-%d %H:%M} UTC{took}; exit {status}; {effort}</div></div>'
    for note in [*run.incomplete(), *run.notes(), *run.remarks()]:
        yield f'<p class="warn" role="alert">{_text(note)}</p>'


def _changes(run: Run) -> Iterator[str]:
    """What is found and was not, what is gone, and what cannot be verified any more, since the last run."""
    if not run.past:
        return
    yield "<h2>Changes since the last run</h2>"
    said = list(_changed(run))
    since = max(past.started for past in run.past.values())
    when = datetime.datetime.fromtimestamp(since, datetime.UTC)
    yield f'<p class="tag">of the same database, on {when:%Y-%m-%d %H:%M} UTC; where this run asked, too</p>'
    if not said:
        yield "<p>None.</p>"
    else:
        yield f'<ul class="few">{"".join(said[:CHANGES])}</ul>'
        yield f"<p>and {len(said) - CHANGES} more</p>" if len(said) > CHANGES else ""


def _changed(run: Run) -> Iterator[str]:
    for change in changes(run):
        kind = f"<b>{change.kind}</b>" if change.worse else change.kind
        name = f'<a href="#{_link(change.result)}">{_text(change.result.check)}</a>'
        yield f"<li>{kind}: {name}: {_text(change.key)}</li>"


def _waivers(run: Run) -> Iterator[str]:
    """Those that end within a month; those that have ended are findings."""
    today = run.started.date()
    soon = [w for c in run.contracts for w in c.waivers if 0 <= (w.until - today).days <= SOON]
    if soon:
        yield "<h2>Waivers about to end</h2><table><tr><th>until<th>check<th>object<th>owner<th>reason</tr>"
        for waiver in sorted(soon, key=lambda w: w.until):
            cells = (waiver.until, waiver.check, waiver.object, waiver.owner, waiver.reason)
            yield "<tr>" + "".join(f"<td>{_text(cell)}" for cell in cells) + "</tr>"
        yield "</table>"


def _bar() -> Iterator[str]:
    options = "".join(f"<option>{verdict}</option>" for verdict in ("failed", "advice", "broken", *list(Verdict)[2:]))
    yield (
        '<div class="bar" role="search"><input id="text" type="search" placeholder="filter by words  ( / )"'
        ' aria-label="filter by words"><select id="verdict" aria-label="filter by verdict">'
        f'<option value="">all</option>{options}</select>'
        '<output id="count" class="tag" aria-live="polite"></output></div>'
    )


def _kind(result: Result) -> str:
    return "advice" if result.verdict is Verdict.FAILED and not result.gates else str(result.verdict)


def _sections(run: Run) -> Iterator[str]:
    titles = {"failed": "Failures", "broken": "Not verified", "advice": "Advice", "waived": "Waived"}
    seen: set[str] = set()
    for kind, title in titles.items():
        cases = [r for r in run.results if _kind(r) == kind]
        if cases:
            yield f'<section class="list"><h2>{title} ({len(cases)})</h2>'
            for result in cases:
                yield from _case(run, result, kind, seen)
            yield "</section>"
    for kind, title in {"skipped": "Skipped", "passed": "Passed"}.items():
        cases = [r for r in run.results if _kind(r) == kind]
        if cases:
            yield f"<h2>{title} ({len(cases)})</h2>"
            yield from _groups(run, cases, kind, seen)


def _identity(result: Result) -> str:
    return "/".join(filter(None, (result.contract, result.check, "_".join(result.subject.split()))))


def _link(result: Result) -> str:
    return _text(quote(_identity(result)))


def _anchor(result: Result, seen: set[str]) -> str:
    """``#check`` leads to the check's first case."""
    if result.check in seen:
        return ""
    seen.add(result.check)
    return f'<a id="{_text(result.check)}"></a>'


def _case(run: Run, result: Result, kind: str, seen: set[str]) -> Iterator[str]:
    guide = next((c.guide for c in run.contracts if c.name == result.contract), "")
    rows = ", ".join(row.id for row in rows_of(guide, result.guide))
    about = [result.contract, result.subject, rows, str(result.severity), f"{result.seconds:.2f} s"]
    about.append(f"{result.examined} examined: {result.looked_for}" if result.examined else "")
    yield f'<article class="case {kind}" data-v="{kind}" id="{_text(_identity(result))}">{_anchor(result, seen)}'
    yield f'<h3><a href="#{_link(result)}">{_text(result.check)}</a>: {_text(result.title)}</h3>'
    yield f'<div class="tag">{_text(" · ".join(filter(None, about)))} {_past(run, result)}</div>'
    yield f'<p class="soft">{_text(result.why)}</p>' if result.why else ""
    if result.verdict is Verdict.BROKEN and not result.unverified:
        yield f"<p>{_text(result.reason)}</p>"
    unverified = [f"{subject}: {reason}" for subject, reason in result.unverified]
    if unverified:
        yield f"<p><b>not verified</b></p>{_few(unverified)}"
    past = run.past.get(result.contract)
    before = past.keys.get((result.check, result.subject)) if past else None
    for finding in result.findings[:FEW]:
        yield from _finding(finding, new=before is not None and finding.key not in before)
    if len(result.findings) > FEW:
        yield f"<p>and {len(result.findings) - FEW} more, in findings.json</p>"
    if result.waived:
        yield _few([f"{finding.key}: {waiver}" for finding, waiver in result.waived])
    yield "</article>"


def _few(lines: list[str]) -> str:
    shown = "".join(f"<li>{_text(line)}</li>" for line in lines[:FEW])
    more = f"<li>and {len(lines) - FEW} more, in findings.json</li>" if len(lines) > FEW else ""
    return f'<ul class="few">{shown}{more}</ul>'


def _finding(finding: Finding, new: bool) -> Iterator[str]:
    count = f" ({finding.count:,} rows)" if finding.count is not None else ""
    yield f"<p><b>{_text(finding.key)}</b>{' <b>new</b>' if new else ''}: {_text(finding.observed)}{count}</p>"
    told = [
        f"value {finding.measured}" if finding.measured else "",
        f"owner {finding.owner}" if finding.owner else "",
        f"masked keys {', '.join(finding.keys)}" if finding.keys else "",
    ]
    if any(told):
        yield f'<div class="tag">{_text(" · ".join(filter(None, told)))}</div>'
    if finding.rows:
        yield f'<div class="tag">shown by</div>{_code(finding.rows)}'
    if finding.remedy:
        taken = lock(finding.remedy)
        notes = [f"takes {taken}" if taken else "", "deletes data" if finding.destroys else ""]
        yield f'<div class="tag">remedy{"".join(f", {n}" for n in notes if n)}</div>{_code(finding.remedy)}'
    if finding.script:
        yield f"<details><summary>script for psql, which undoes it all</summary>{_code(finding.script)}</details>"


def _code(text: str) -> str:
    return f'<button class="copy" type="button">copy</button><pre><code>{_text(text)}</code></pre>'


def _groups(run: Run, cases: list[Result], kind: str, seen: set[str]) -> Iterator[str]:
    """One fold for each check; what it said of each subject inside."""
    checks: dict[str, list[Result]] = {}
    for result in cases:
        checks.setdefault(result.check, []).append(result)
    for check, results in checks.items():
        first = results[0]
        yield f'<details class="group">{_anchor(first, seen)}<summary>{_text(check)}: {_text(first.title)}'
        yield f' <span class="tag">{len(results)}</span></summary>'
        yield f'<p class="soft">{_text(first.why)}</p><ul class="few">'
        for result in results:
            about = " ".join(filter(None, (result.contract, result.subject)))
            more = result.reason or f"{result.examined} examined"
            more += ", accepted" if result.accepted and result.verdict is Verdict.SKIPPED else ""
            yield (
                f'<li data-v="{kind}" id="{_text(_identity(result))}">{_text(about)}'
                f' <span class="tag">{_text(more)} {_past(run, result)}</span></li>'
            )
        yield "</ul></details>"


def _past(run: Run, result: Result) -> str:
    past = run.past.get(result.contract)
    verdicts = past.verdicts.get((result.check, result.subject), ()) if past else ()
    return strip([*verdicts, str(result.verdict)]) if set(filter(None, verdicts)) - {str(result.verdict)} else ""


def _matrix(run: Run) -> Iterator[str]:
    """Findings by relation and check, and rows by tenant and check: which of them have much in common. No tenant's key
    stands in any report."""
    found: Counter[tuple[str, str]] = Counter()
    rows: Counter[tuple[str, str]] = Counter()
    for result in run.results:
        for finding in result.findings:
            found[_relation(finding.object), result.check] += 1
            rows.update({(tenant, result.check): number for tenant, number in finding.tenants})
    if len({relation for relation, _ in found}) > 1:
        yield from _heat("Findings by relation and check", "relation", found)
    if rows:
        yield from _heat("Rows by tenant (a digest of its key) and check", "tenant", rows)


def _heat(title: str, what: str, found: Counter[tuple[str, str]]) -> Iterator[str]:
    """A table of numbers, each shaded by how it compares to the largest one: ten shades, by orders of magnitude."""
    names, checks = Counter[str](), Counter[str]()
    for (name, check), number in found.items():
        names[name] += number
        checks[check] += number
    shown = [check for check, _ in checks.most_common(COLUMNS)]
    most = math.log1p(max(found.values()))
    yield f'<details><summary>{title} <span class="tag">{found.total():,}</span></summary>'
    yield f'<table class="grid"><tr><th>{what}{"".join(f"<th>{_text(check)}" for check in shown)}</tr>'
    for name, _ in names.most_common(ROWS):
        numbers = [found[name, check] for check in shown]
        shades = [math.ceil(9 * math.log1p(number) / most) for number in numbers]
        cells = "".join(
            f'<td class="n h{shade}">{number:,}' if number else "<td>"
            for shade, number in zip(shades, numbers, strict=True)
        )
        yield f"<tr><td>{_text(name)}{cells}</tr>"
    yield "</table></details>"


def _relation(name: str) -> str:
    """The relation of an object's name; the name itself where it is no name of an object."""
    try:
        return qualified(*split(name.partition("(")[0])[:2])
    except ValueError:
        return name


def _figures(run: Run) -> Iterator[str]:
    """What was measured, beside the run before."""
    rows = [(result.contract, figure) for result in run.results for figure in result.figures]
    for contract, past in run.past.items():  # searches are measured by a benchmark, not by the run
        named = [(name, values) for name, values in past.figures.items() if name.startswith(SEARCHES)]
        rows += [(contract, Figure(name, values[-1][1])) for name, values in named]
    if rows:
        yield "<details><summary>Measured</summary><table><tr><th>figure<th>now<th>before<th>trend</tr>"
        for contract, figure in sorted(rows, key=lambda row: (row[0], row[1].name)):
            earlier = run.past[contract].figures.get(figure.name, []) if contract in run.past else []
            values = [value for _, value in earlier]
            values = values[:-1] if figure.name.startswith(SEARCHES) else values
            before = f"{values[-1]:,.6g}" if values else ""
            yield (
                f'<tr><td>{_text(figure.name)}<td class="n">{figure.value:,.6g} {_text(figure.unit)}'
                f'<td class="n">{before}<td>{line([*values, figure.value])}</tr>'
            )
        yield "</table></details>"
