"""From one case of pytest to a result: judge, put into words, record."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pgconform.checks import Check, Evidence, evaluate, own_error, subject_name
from pgconform.locks import waits
from pgconform.model import Finding, NotVerified, Result, TargetLost, Verdict
from pgconform.progress import Meter, shown
from pgconform.results import Run, from_json
from pgconform.session import Databases

SHOWN = 20  # findings of one check that a message lists; reports/out/findings.json has all
READ = 30_000  # pages a second that a question reads, groups and sorts, as seen at 5,000,000 rows
COPIED = 6_000  # pages a second that are dumped, restored and compared
LOST_PREFIX = "lost: "


def judged(databases: Databases, check: Check, contract: str, subject: Any, terminal: bool = False) -> Result:
    """The result of one case, with a line on the ``terminal`` while it takes long. Whatever goes wrong in pgconform
    itself is the verdict broken, with its place."""
    name = "" if subject is None else subject_name(subject)
    try:
        evidence = databases.evidence(contract)
        meter = _expected(evidence, check, subject) if terminal else None
        with shown(f"{check.id} {name or contract}", meter, terminal):
            return evaluate(check, evidence, None if subject is None else [subject])
    except TargetLost as error:
        reason = f"{LOST_PREFIX}{error}"
    except Exception as error:
        reason = own_error(error)
    return Result(
        check.id, contract, Verdict.BROKEN, check.title, name, check.why, check.guide, check.severity, reason=reason
    )  # fmt: skip


def _expected(evidence: Evidence, check: Check, subject: Any) -> Meter:
    """The seconds that it took last time; else a guess by what it has to read, as the catalogue counts the pages."""
    with suppress(NotVerified):
        name = "" if subject is None else subject_name(subject)
        if evidence.history and (seconds := evidence.history.seconds(check.id, name)):
            return Meter(seconds, "last time")
    if "copies" in check.asks:
        return Meter(sum(table.pages for table in evidence.catalog.tables) / COPIED, "the database's size")
    table = evidence.catalog.table(getattr(subject, "table", ""))
    return Meter(table.pages / READ if table else 0.0, "the table's size")


def text(result: Result) -> str:
    """The message of a failed or broken check: each finding with object, observation and remedy."""
    if result.verdict is Verdict.BROKEN:
        return f"{result.check}: could not be verified: {result.reason}"
    advice = "" if result.gates else "advice: "
    parts = [f"{advice}{result.check}: {result.title}"]
    above = ""
    for finding in result.findings[:SHOWN]:
        parts.append(described(finding, above))
        above = finding.rows
    if len(result.findings) > SHOWN:
        parts.append(f"  ... and {len(result.findings) - SHOWN} more: see findings.json")
    return "\n".join(parts)


def described(finding: Finding, above: str = "") -> str:
    """One finding in a few lines, the remedy as it can be pasted. SQL that stands ``above`` is not told again."""
    lines = [f"  {finding.object}: {finding.observed}"]
    keys = f"{', '.join(finding.keys)} (masked_key of what is shown below)" if finding.keys else ""
    for label, told in (("value", finding.measured), ("owner", finding.owner), ("keys", keys)):
        lines += [f"    {label}:  {told}"] if told else []
    rows = "the same" if finding.rows and finding.rows == above else finding.rows
    for number, line in enumerate(rows.splitlines()):
        lines.append(f"    {'        ' if number else 'shown by:'} {line}")
    for number, line in enumerate(finding.remedy.splitlines()):
        label = "remedy (destroys data):" if finding.destroys else "remedy:"
        lines.append(f"    {label if not number else ' ' * len(label)} {line}")
    lines += [f"    lock: {taken}"] if (taken := waits(finding.remedy)) else []
    if finding.script:
        lines.append("    see for yourself, in psql:")
        lines += [f"      {line}" for line in finding.script.splitlines()]
    return "\n".join(lines)


def record(run: Run, node: str, outcome: str, carried: object) -> None:
    """Adds what one test report carries to the run; a failure that carries no result is trouble of our own."""
    if isinstance(carried, str):
        result = from_json(carried)
        run.results.append(result)
        if result.reason.startswith(LOST_PREFIX) and not run.lost:
            run.lost = result.reason.removeprefix(LOST_PREFIX)
    elif outcome == "failed":
        run.troubles.append(f"{node} ended without a verdict")
