"""gl-code-quality-report.json: GitLab's Code Quality, for the widget of a merge request."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from .places import place
from .plain import plain, worst_first

if TYPE_CHECKING:
    from pgconform.results import Run

_SEVERITY = {"error": "critical", "warning": "minor", "notice": "info"}


def render(run: Run) -> str:
    """A list of issues, the worst first, waived ones as info. Equal fingerprints mean the same finding."""
    issues = [
        _issue("incomplete", text, "blocker", f"{contract.name}.toml", 1, f"incomplete\0{number}")
        for contract in run.contracts[:1] for number, text in enumerate(run.incomplete())
    ]  # fmt: skip
    if left := run.selected():
        issues.append(_issue("selection", left, "info", f"{run.contracts[0].name}.toml", 1, "selection"))
    for level, result, finding, text in worst_first(run):
        path, line = place(run, result, finding)
        about = finding.key if finding else text.partition(": ")[0]
        identity = "\0".join((result.contract, result.check, result.subject, about))
        issues.append(_issue(result.check, text, _SEVERITY[level], path, line, identity))
    return json.dumps(issues, indent=1) + "\n"


def _issue(check: str, text: str, severity: str, path: str, line: int, identity: str) -> dict[str, object]:
    return {
        "description": f"{check}: {plain(text)}",
        "check_name": check,
        "fingerprint": sha256(identity.encode("utf-8", "replace")).hexdigest(),
        "severity": severity,
        "location": {"path": path, "lines": {"begin": line}},
    }
