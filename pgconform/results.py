"""The stream of results of one run, and what it amounts to. Reports are written from it and from nothing else."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pgconform.baseline import Baseline
from pgconform.checks import covers
from pgconform.contract import Contract
from pgconform.drift import Facts
from pgconform.history import Past
from pgconform.model import FAIL_ON, Effort, Finding, Result, Verdict

# Exit statuses; 2 and 4 are pytest's own.
CONFORMS, FINDINGS, INTERRUPTED, NOT_VERIFIED, USAGE, NOTHING, LOST = 0, 1, 2, 3, 4, 5, 75

MANY = 5  # findings of one remedy, from which a reader is told


def to_json(result: Result) -> str:
    """The result as text, safe to cross process borders and to stand in a report."""
    return msgspec.json.encode(result).decode()


def from_json(text: str) -> Result:
    return msgspec.json.decode(text, type=Result)


@dataclass
class Run:
    """What a run has judged so far. ``facts`` say what was tested, never how it was reached.

    ``files`` are the contracts' files, by contract; ``finished`` is None until all that was asked for has been judged.
    """

    contracts: tuple[Contract, ...]
    facts: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)  # what went wrong in pgconform or pytest itself
    lost: str = ""
    mistake: str = ""  # the caller's, for which nothing was judged
    started: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    finished: datetime.datetime | None = None
    interrupted: bool = False
    effort: Effort = field(default_factory=Effort)
    past: dict[str, Past] = field(default_factory=dict)  # what earlier runs found, by contract
    files: dict[str, Path] = field(default_factory=dict)
    fail_on: str = "must"
    baseline: Baseline | None = None
    beside: dict[str, Any] = field(default_factory=dict)  # what other commands left among the reports
    catalogs: dict[str, Facts] = field(default_factory=dict)  # what the catalogues said, by contract
    selection: str = ""  # the options by which only a part was asked, as they are typed
    unasked: int = 0  # cases that were left out by it
    noted: list[str] | None = None  # notes and remarks of a run that was read again, which lacks what they are made of

    def finish(self, today: datetime.date, facts: dict[str, str]) -> None:
        """Sorts the results and judges the waivers: one that has ended, or that matched nothing, is a finding."""
        self.finished = datetime.datetime.now(datetime.UTC)
        self.facts |= facts
        for contract in self.contracts:
            self.results += stale_waivers(contract, self.results, today)
        self.results.sort(key=lambda r: (r.contract, r.check, r.subject))

    def notes(self) -> list[str]:
        """What a reader should know before all findings: that this is hardly the database that the contract means."""
        if self.noted is not None:
            return self.noted
        found = []
        for contract in self.contracts:
            missed = {f.object for r in self.results if (r.check, r.contract) == ("tables-exist", contract.name)
                      for f in r.findings}  # fmt: skip
            wanted = sum(not promise.optional for promise in contract.tables.values())
            if len(missed) * 2 > wanted:
                said = f"{len(missed)} of the {wanted} relations of contract {contract.name} do not exist here"
                found.append(
                    f"{said}: is it the right database, and the right contract? Run no remedy before you know."
                )
        return found

    def remarks(self) -> list[str]:
        """What a reader should do first: mend what has many symptoms; leave what is gone out of the baseline."""
        if self.noted is not None:
            return []
        gone = self.baseline.gone(self.results) if self.baseline else 0
        told = f"{gone} finding(s) of the baseline are gone: write it anew, so that they cannot return"
        return [*self._shared(), *([told] if gone else [])]

    def _shared(self) -> list[str]:
        """The remedy that most findings of a contract have, where these are many: one cause has many symptoms.

        Of those that fail the run first; none that destroys data, and none where it may be the wrong database.
        """
        failed = [result for result in self.results if result.verdict is Verdict.FAILED]
        failed = [result for result in failed if result.gates] or failed
        told: dict[tuple[str, str], list[str]] = {}  # the check of each finding, by contract and remedy
        for result in failed:
            for finding in result.findings:
                if _advisable(finding):
                    told.setdefault((result.contract, finding.remedy), []).append(result.check)
        most = sorted(told.items(), key=lambda item: (-len(item[1]), item[0]))
        if not most or len(most[0][1]) < MANY or self.notes():
            return []
        (contract, remedy), checks = most[0]
        among = f"{len(checks)} of {sum(len(r.findings) for r in failed if r.contract == contract)} findings"
        where = remedy if len(remedy.splitlines()) == 1 else f"that of {min(checks)}, beside its findings"
        said = f"in {len(set(checks))} check(s), have the same remedy; begin with it, and run again"
        return [f"{contract}: {among}, {said}: {where}"]

    def incomplete(self) -> list[str]:
        """Why the results are not all that was asked for, and what went wrong on the way; [] for a complete run."""
        found = [why for why in (self.mistake, self.lost) if why]
        if self.interrupted or not (self.finished or found):
            found.append("the run was cut short: there is only what had been judged by then")
        return [*found, *self.troubles]

    def selected(self) -> str:
        """How many cases were not asked, and by which options; '' where all were."""
        return f"{self.unasked:,} case(s) not asked: {self.selection}" if self.unasked else ""

    def counts(self) -> Counter[Verdict]:
        return Counter(result.verdict for result in self.results)

    def gates(self, result: Result) -> bool:
        """True where the result's findings fail the run."""
        return result.verdict is Verdict.FAILED and result.severity in FAIL_ON[self.fail_on]

    def status(self) -> tuple[int, str]:
        """Exit status of the run, and one line that says why; and how much of the contract it does not speak of."""
        status, reason = self._status()
        return status, "; ".join(filter(None, (reason, self.selected())))

    def _status(self) -> tuple[int, str]:
        counts = self.counts()
        failed = [r for r in self.results if self.gates(r)]
        unaccepted = [r for r in self.results if r.verdict is Verdict.SKIPPED and not r.accepted]
        told = f"{sum(len(r.findings) for r in failed)} finding(s) in {len(failed)} check(s)"
        if self.mistake:
            return USAGE, self.mistake
        if self.lost:
            return LOST, self.lost
        if self.interrupted or not self.finished:
            return INTERRUPTED, f"the run was cut short{f'; by then: {told}' if failed else ''}"
        if failed:
            return FINDINGS, f"does not conform: {told}"
        if self.troubles:
            return NOT_VERIFIED, self.troubles[0]
        if counts[Verdict.BROKEN]:
            return NOT_VERIFIED, f"{counts[Verdict.BROKEN]} check(s) could not be verified"
        if unaccepted:
            names = sorted({r.check for r in unaccepted})
            few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            return NOTHING, f"nothing to examine for {few}; if that is right, list them under [skips]"
        if not counts[Verdict.PASSED] + counts[Verdict.WAIVED] + counts[Verdict.FAILED]:
            return NOTHING, "nothing was examined"
        if broken := [r for r in self.results if r.gates]:  # --fail-on=never
            found = sum(len(r.findings) for r in broken)
            return CONFORMS, f"does not conform, and was not to fail: {found} finding(s) in {len(broken)} check(s)"
        advice = sum(len(r.findings) for r in self.results)
        more = f", {advice} piece(s) of advice" if advice else ""
        return CONFORMS, f"conforms: {counts[Verdict.PASSED]} check(s) passed{more}"


def stale_waivers(contract: Contract, results: Iterable[Result], today: datetime.date) -> list[Result]:
    """A result for each waiver that has ended or matched nothing, of checks that ran and were not broken."""
    found = []
    ran = {r.check: r for r in results if r.contract == contract.name}
    broken = {r.check for r in results if r.contract == contract.name and r.verdict is Verdict.BROKEN}
    for waiver in contract.waivers:
        seen = [f for r in results if r.contract == contract.name for f in (*r.findings, *(f for f, _ in r.waived))]
        matched = any(covers(waiver, waiver.check, finding) for finding in seen)
        if waiver.check not in ran or waiver.check in broken or (matched and today <= waiver.until):
            continue
        why = f"ended on {waiver.until}" if waiver.until < today else "matches nothing any more"
        finding = Finding(waiver.object, f"the waiver of {waiver.check} ({waiver.owner}) {why}", "", waiver.check)
        found.append(
            Result(
                "waivers-current", contract.name, Verdict.FAILED, "Every waiver matches something and has not ended",
                examined=1, looked_for="waivers", findings=(finding,), subject=f"{waiver.check} {waiver.object}",
            )
        )  # fmt: skip
    return found


def _advisable(finding: Finding) -> bool:
    """True for a remedy that holds SQL, and destroys nothing."""
    return not finding.destroys and any(
        line.strip() and not line.startswith("--") for line in finding.remedy.splitlines()
    )
