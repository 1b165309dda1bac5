"""pgconform.sarif: SARIF 2.1.0, for code scanning. A result for each finding, at its section of the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pgconform import __version__
from pgconform.model import Severity, Verdict

from .places import place
from .plain import plain, unexamined, unverified

if TYPE_CHECKING:
    from pgconform.model import Finding, Result
    from pgconform.results import Run

MOST = 5_000  # results of one run that GitHub's code scanning takes
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_ORDER = ("error", "warning", "note")


def render(run: Run) -> str:
    """The run as SARIF. Waived findings are suppressed results; what could not be verified is a result, too."""
    status, reason = run.status()
    found = [entry for result in run.results for entry in _results(run, result)]
    found.sort(key=lambda entry: (bool(entry.get("suppressions")), _ORDER.index(entry["level"])))
    more = len(found) - MOST
    told = [*run.incomplete(), *run.notes(), *run.remarks(), *([f"{more} more in findings.json"] if more > 0 else [])]
    times = {"startTimeUtc": _time(run.started), **({"endTimeUtc": _time(run.finished)} if run.finished else {})}
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "pgconform", "semanticVersion": __version__, "rules": [_rule(r) for r in _first(run).values()],
            }},
            "automationDetails": {"id": f"pgconform/{'+'.join(contract.name for contract in run.contracts)}/"},
            "invocations": [{
                "executionSuccessful": not run.incomplete(), "exitCode": status, "exitCodeDescription": plain(reason),
                **times,
                "toolExecutionNotifications": [
                    *({"level": "error", "message": {"text": plain(text)}} for text in told),
                    *({"level": "note", "message": {"text": plain(text)}} for text in [run.selected()] if text),
                ],
            }],
            "columnKind": "unicodeCodePoints",
            "results": found[:MOST],
            "properties": {"counts": {str(verdict): number for verdict, number in sorted(run.counts().items())}},
        }],
    }  # fmt: skip
    return json.dumps(document, indent=1) + "\n"


def _time(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _first(run: Run) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for result in run.results:
        found.setdefault(result.check, result)
    return found


def _level(result: Result) -> str:
    return "error" if result.severity is Severity.MUST else "warning"


def _rule(result: Result) -> dict[str, Any]:
    return {
        "id": result.check,
        "shortDescription": {"text": plain(result.title) or result.check},
        **({"fullDescription": {"text": plain(result.why)}} if result.why else {}),
        "defaultConfiguration": {"level": _level(result)},
        "properties": {"tags": list(result.guide)},
    }


def _results(run: Run, result: Result) -> Iterator[dict[str, Any]]:
    for finding in result.findings:
        yield _entry(run, result, _level(result), finding.told, finding)
    for finding, waiver in result.waived:
        suppression = {"kind": "external", "status": "accepted", "justification": plain(waiver)}
        yield _entry(run, result, _level(result), finding.told, finding) | {"suppressions": [suppression]}
    for subject, reason in unverified(result):
        yield _entry(run, result, "error", f"could not be verified: {reason}", key=f"unverified {subject}")
    if result.verdict is Verdict.SKIPPED and not result.accepted:
        yield _entry(run, result, "warning", unexamined(result), key="skipped")


def _entry(
    run: Run, result: Result, level: str, text: str, finding: Finding | None = None, key: str = ""
) -> dict[str, Any]:
    path, line = place(run, result, finding)
    name = finding.key if finding else result.subject or result.contract
    remedy = f"\n\nRemedy:\n{finding.remedy}" if finding and finding.remedy else ""
    identity = "\0".join((result.contract, result.check, result.subject, finding.key if finding else key))
    return {
        "ruleId": result.check,
        "level": level,
        "message": {"text": plain(f"{name}: {text}{remedy}")},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": {"startLine": line}},
            "logicalLocations": [{"fullyQualifiedName": plain(name)}],
        }],
        "partialFingerprints": {"pgconform/v1": sha256(identity.encode("utf-8", "replace")).hexdigest()},
    }  # fmt: skip


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
