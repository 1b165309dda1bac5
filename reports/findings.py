"""findings.json: everything that a run found, for scripts; and the run again, for other reports and for comparing."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.contract import Contract, Waiver
from pgconform.model import Effort, Figure, Finding, Mistake, Result, Severity, Verdict
from pgconform.results import Run

from . import past
from .places import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1  # raised when a key changes its meaning or goes away
FILE = "findings.json"


def render(run: Run) -> str:
    """The run as JSON: status, counts by verdict, facts, and each result with its findings in full."""
    status, reason = run.status()
    document = {
        "format": FORMAT,
        "status": status,
        "reason": reason,
        "complete": not run.incomplete(),
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds") if run.finished else None,
        "contracts": [contract.name for contract in run.contracts],
        "declared": {contract.name: _declared(run, contract) for contract in run.contracts},
        "facts": run.facts,
        "effort": run.effort.level,
        "seed": run.effort.seed,
        "fail_on": run.fail_on,
        "counts": {str(verdict): number for verdict, number in sorted(run.counts().items())},
        "lost": run.lost,
        "mistake": run.mistake,
        "interrupted": run.interrupted,
        "selection": run.selection,
        "unasked": run.unasked,
        "past": {name: past.told(each) for name, each in run.past.items()},
        "notes": [*run.notes(), *run.remarks()],
        "troubles": run.troubles,
        "results": [_result(result) for result in run.results],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _declared(run: Run, contract: Contract) -> dict[str, Any]:
    file = shown(run.files[contract.name]) if contract.name in run.files else ""
    keys = ("check", "object", "detail", "reason", "owner")
    waivers = [{key: getattr(w, key) for key in keys} | {"until": w.until.isoformat()} for w in contract.waivers]
    return {"title": contract.title, "guide": contract.guide, "file": file, "waivers": waivers}


def _result(result: Result) -> dict[str, Any]:
    return {
        "check": result.check,
        "contract": result.contract,
        "subject": result.subject,
        "verdict": str(result.verdict),
        "severity": str(result.severity),
        "title": result.title,
        "why": result.why,
        "guide": list(result.guide),
        "examined": result.examined,
        "looked_for": result.looked_for,
        "reason": result.reason,
        "accepted": result.accepted,
        "unverified": [{"subject": subject, "reason": reason} for subject, reason in result.unverified],
        "seconds": round(result.seconds, 4),
        "attempts": result.attempts,
        "figures": [{"name": f.name, "value": f.value, "unit": f.unit} for f in result.figures],
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
        "keys": list(finding.keys),
        "tenants": dict(finding.tenants),
        "value": finding.value,
        "limit": finding.limit,
        "unit": finding.unit,
        "owner": finding.owner,
    }


def read(path: Path) -> Run:
    """The run of the file, or of the directory that holds it. Raises Mistake where it is none of this format."""
    file = path / FILE if path.is_dir() else path
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError
        return _run(told)
    except OSError as error:
        raise Mistake(f"{file}: cannot be read: {error.strerror}; wanted the {FILE} of a run") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Mistake(f"{file}: not the {FILE} of a run, of format {FORMAT}") from None


def _run(told: Mapping[str, Any]) -> Run:
    declared = told["declared"]
    contracts = tuple(
        Contract(name, title=declared[name]["title"], guide=declared[name]["guide"], waivers=tuple(
            Waiver(**{**waiver, "until": datetime.date.fromisoformat(waiver["until"])})
            for waiver in declared[name]["waivers"]
        ))
        for name in told["contracts"]
    )  # fmt: skip
    return Run(
        contracts, facts=told["facts"], results=[_judged(result) for result in told["results"]],
        troubles=told["troubles"], lost=told["lost"], mistake=told.get("mistake", ""),
        started=datetime.datetime.fromisoformat(told["started"]),
        finished=datetime.datetime.fromisoformat(told["finished"]) if told["finished"] else None,
        interrupted=told["interrupted"], effort=Effort.of(told["effort"], str(told["seed"])), fail_on=told["fail_on"],
        selection=told.get("selection", ""), unasked=told.get("unasked", 0), noted=told.get("notes", []),
        past={name: past.heard(each) for name, each in told.get("past", {}).items()},
        files={name: Path(of["file"]) for name, of in declared.items() if of["file"]},
    )  # fmt: skip


def _judged(told: Mapping[str, Any]) -> Result:
    lists = {
        "verdict": Verdict(told["verdict"]),
        "severity": Severity(told["severity"]),
        "guide": tuple(told["guide"]),
        "unverified": tuple((each["subject"], each["reason"]) for each in told["unverified"]),
        "figures": tuple(Figure(**each) for each in told["figures"]),
        "findings": tuple(map(_found, told["findings"])),
        "waived": tuple((_found(each), each["waiver"]) for each in told["waived"]),
    }
    return Result(**{**told, **lists})


def _found(told: Mapping[str, Any]) -> Finding:
    lists = {"keys": tuple(told.get("keys", ())), "tenants": tuple(told.get("tenants", {}).items())}
    return Finding(**{key: value for key, value in told.items() if key not in ("key", "waiver")} | lists)
