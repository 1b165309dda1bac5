"""report.html: one page for people, without any network. What a reader acts on comes first."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform import __version__
from pgconform.guides import rows_of
from pgconform.locks import lock
from pgconform.model import Result, Verdict
from pgconform.names import qualified, split

from .beside import sections
from .html_figures import figures
from .html_top import bar, changed, head, waivers
from .html_words import FOLDED, OPEN, heading, identity, kind, link
from .html_words import text as _text
from .plain import unexamined
from .plots import strip
from .skips import Skips

if TYPE_CHECKING:
    from pgconform.model import Finding
    from pgconform.results import Run

FEW = 5  # findings of one case that are shown; findings.json has all
ROWS, COLUMNS = 40, 20  # of the table of findings: the relations and checks with the most
_TEMPLATES = Path(__file__).with_name("templates")


def render(run: Run) -> str:
    """The run as one HTML page of its own: verdict, changes, waivers, failures, and all the rest."""
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    names = ", ".join(contract.name for contract in run.contracts)
    top = "\n".join([*head(run), *changed(run), *waivers(run)])
    rest = "\n".join(
        [
            *_sections(run),
            *_matrix(run),
            *sections(run.beside, {contract.name for contract in run.contracts}),
            *figures(run),
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
{top}
{bar(top + rest)}
{rest}
<script>{script}</script>
</body>
</html>
"""


def _sections(run: Run) -> Iterator[str]:
    skips = Skips(run)
    for each, title in (OPEN | FOLDED).items():
        cases = [result for result in run.results if kind(result) == each]
        if cases:
            yield f'<section class="list">{heading(each, f"{title} ({len(cases)})")}'
            if each in OPEN:
                for result in cases:
                    yield from _case(run, result, each, skips)
            else:
                yield from _groups(run, cases, each)
            yield "</section>"


def _case(run: Run, result: Result, kind: str, skips: Skips) -> Iterator[str]:
    guide = next((c.guide for c in run.contracts if c.name == result.contract), "")
    rows = ", ".join(row.id for row in rows_of(guide, result.guide))
    about = [result.contract, result.subject, rows, str(result.severity), f"{result.seconds:.2f} s"]
    about.append(f"{result.examined} examined: {result.looked_for}" if result.examined else "")
    yield f'<article class="case {kind}" {_at(run, result, kind)}>'
    yield f'<h3><a href="#{link(result)}">{_text(result.check)}</a>: {_text(result.title)}</h3>'
    yield f'<div class="tag">{_text(" · ".join(filter(None, about)))}</div>'
    yield f'<p class="soft">{_text(result.why)}</p>' if result.why else ""
    if result.verdict is Verdict.BROKEN and not result.unverified:
        yield f"<p>{_text(result.reason)}</p>"
    if kind == "unexamined":
        yield f"<p>{_text(unexamined(result))}</p>"
        if not skips.explained(result):  # else a finding says what is missing
            proposed = _code(skips.line(result))
            yield f'<div class="tag">where that is right, under [skips] of the contract</div>{proposed}'
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


def _groups(run: Run, cases: list[Result], kind: str) -> Iterator[str]:
    """A fold for each check; what it said of each subject inside, or beside its name where there is one only."""
    checks: dict[str, list[Result]] = {}
    for result in cases:
        checks.setdefault(result.check, []).append(result)
    for check, results in checks.items():
        first = results[0]
        title, why = f"{_text(check)}: {_text(first.title)}", f"<p>{_text(first.why)}</p>"
        if len(results) == 1:
            at, told = _at(run, first, kind), " · ".join(filter(None, _brief(run, first)))
            yield f"<details {at}><summary>{title} <small>{told}</small></summary>{why}</details>"
            continue
        yield f'<details class="group"><summary>{title} <small>{len(results)}</small></summary>{why}<ul class="few">'
        for result in results:
            about, told = _brief(run, result)
            yield f"<li {_at(run, result, kind)}>{about} <small>{told}</small></li>"
        yield "</ul></details>"


def _brief(run: Run, result: Result) -> tuple[str, str]:
    """Contract and subject; and what was examined, or why nothing was."""
    about = filter(None, (result.contract if len(run.contracts) > 1 else "", result.subject))
    return _text(" ".join(about)), _text(result.reason or f"{result.examined} examined")


def _at(run: Run, result: Result, kind: str) -> str:
    """The attributes by which the page's script finds the case, filters it, and draws its last runs."""
    return f'data-v={kind} id="{_text(identity(result))}"{_past(run, result)}'


def _past(run: Run, result: Result) -> str:
    past = run.past.get(result.contract)
    verdicts = past.verdicts.get((result.check, result.subject), ()) if past else ()
    return strip([*verdicts, str(result.verdict)]) if any(verdicts) else ""


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
        yield from _heat("matrix", "Findings by relation and check", "relation", found)
    if rows:
        yield from _heat("tenants", "Rows by tenant and check", "digest of the tenant's key", rows)


def _heat(slug: str, title: str, what: str, found: Counter[tuple[str, str]]) -> Iterator[str]:
    """A table of numbers, each shaded by how it compares to the largest one: ten shades, by orders of magnitude."""
    names, checks = Counter[str](), Counter[str]()
    for (name, check), number in found.items():
        names[name] += number
        checks[check] += number
    shown = [check for check, _ in checks.most_common(COLUMNS)]
    most = math.log1p(max(found.values()))
    yield heading(slug, title)
    yield f'<details><summary>Where they have much in common <span class="tag">{found.total():,}</span></summary>'
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
