"""findings.json: everything that a run found, for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgconform.model import Finding, Result
    from pgconform.results import Run

FORMAT = 1  # raised when a key changes its meaning or goes away


def render(run: Run) -> str:
    """The run as JSON: status, counts by verdict, facts, and each result with its findings in full."""
    status, reason = run.status()
    document = {
        "format": FORMAT,
        "status": status,
        "reason": reason,
        "complete": not (run.interrupted or run.lost or run.troubles),
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds") if run.finished else None,
        "contracts": [contract.name for contract in run.contracts],
        "facts": run.facts,
        "effort": run.effort.level,
        "seed": run.effort.seed,
        "counts": {str(verdict): number for verdict, number in sorted(run.counts().items())},
        "troubles": run.troubles,
        "results": [_result(result) for result in run.results],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _result(result: Result) -> dict[str, Any]:
    return {
        "check": result.check,
        "contract": result.contract,
        "subject": result.subject,
        "verdict": str(result.verdict),
        "severity": str(result.severity),
        "title": result.title,
        "guide": list(result.guide),
        "examined": result.examined,
        "looked_for": result.looked_for,
        "reason": result.reason,
        "accepted": result.accepted,
        "unverified": [{"subject": subject, "reason": reason} for subject, reason in result.unverified],
        "seconds": round(result.seconds, 4),
        "attempts": result.attempts,
        "findings": [_finding(finding) for finding in result.findings],
        "waived": [{**_finding(finding), "waiver": waiver} for finding, waiver in result.waived],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "key": finding.key,
        "object": finding.object,
        "detail": finding.detail,
        "observed": finding.observed,
        "remedy": finding.remedy,
        "destroys": finding.destroys,
        "rows": finding.rows,
        "count": finding.count,
        "script": finding.script,
    }
