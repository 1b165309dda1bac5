"""What a check is, and how one is judged: subjects in, findings out, one verdict. Never talks to pytest or a server.

A check is a generator function that looks at one subject. ``of=`` names where its subjects come from in the
catalogue: they are folded into one test. ``each=`` names what the contract lists on purpose: one test for each.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgconform import sequences
from pgconform.contract import Contract, Waiver
from pgconform.model import (
    CADENCES,
    Effort,
    Figure,
    Finding,
    Nothing,
    NotVerified,
    Result,
    Severity,
    TargetLost,
    Verdict,
)
from pgconform.reproduce import whole
from pgconform.vector_kinds import alike

if TYPE_CHECKING:
    import datetime

    from pgconform.catalog import Catalog
    from pgconform.database import Database
    from pgconform.history import History
    from pgconform.privileges import Privileges
    from pgconform.recovery.copies import Copies

LOCKED = "{} is locked by another session (ACCESS EXCLUSIVE); run again when its change is done"
DRILL = "a drill writes, and a live target is never written: run it on a copy (target embedded or container)"
COPIED = "a drill on a copy reads the whole database: ask for it by --drill=restore"


@dataclass(frozen=True)
class Evidence:
    """All that checks may ask for by the name of a parameter."""

    contract: Contract
    catalog: Catalog
    database: Database
    today: datetime.date
    writing: Callable[[], Database] | None = None  # where drills may write; they undo all they do
    effort: Effort = field(default_factory=Effort)
    copies: Copies | None = None  # of the database, where drills may commit
    history: History | None = None  # what earlier runs measured; None where none is kept

    def part(self, name: str) -> Any:
        """What a check's parameter of that name gets. Raises Nothing where no history is kept."""
        if name == "history" and self.history is None:
            raise Nothing("no history is kept")
        return self if name == "evidence" else getattr(self, name)

    @cached_property
    def drills(self) -> Database:
        """The connection that drills write on."""
        assert self.writing, "a drill runs on disposable targets only"
        return self.writing()

    @cached_property
    def privileges(self) -> Privileges:
        from pgconform.privileges import Privileges

        return Privileges(self.catalog)

    @cached_property
    def selected(self) -> dict[Callable[..., Iterable[Any]], list[Any]]:
        """The subjects that were asked for already: contract and catalogue stay as they are."""
        return {}


@dataclass(frozen=True)
class Check:
    """One obligation. ``select`` yields its subjects; ``judge`` yields what is wrong with one of them."""

    id: str
    judge: Callable[..., Iterator[Finding | Figure]]
    select: Callable[..., Iterable[Any]]
    by_contract: bool
    guide: tuple[str, ...]
    when: tuple[str, ...]
    severity: Severity
    title: str
    why: str
    module: str
    looked_for: str
    asks: tuple[str, ...] = field(default=())
    drill: bool = False

    def subjects(self, contract: Contract, evidence: Evidence | None = None) -> list[Any]:
        """What to look at, in a fixed order; needs ``evidence`` unless the contract alone names the subjects.

        With evidence they are selected once for all checks that look at the same: the list is not to be changed.
        """
        if evidence is None:
            assert self.by_contract, "subjects from the catalogue need the catalogue"
            return list(self.select(contract))
        if self.select not in evidence.selected:
            asked = [evidence.contract] if self.by_contract else _arguments(self.select, evidence)
            evidence.selected[self.select] = list(self.select(*asked))
        return evidence.selected[self.select]


REGISTRY: dict[str, Check] = {}


def check(
    id: str,
    *,
    guide: Sequence[str],
    when: Sequence[str],
    of: Callable[..., Iterable[Any]] | None = None,
    each: Callable[[Contract], Iterable[Any]] | None = None,
    severity: Severity = Severity.MUST,
    drill: bool = False,
) -> Callable[[Callable[..., Iterator[Finding | Figure]]], Callable[..., None]]:
    """Make a generator of findings, and of figures to keep, a test.

    The docstring's first line is the obligation, the rest says why it matters.

    A ``drill`` writes, and undoes it; it is judged on disposable targets only.

    Raises ValueError for an id that is taken, an unknown cadence, or a check without docstring or subjects.
    """
    select = of or each
    if select is None or (of and each) or not set(when) <= set(CADENCES) or not when:
        raise ValueError(f"check {id}: give of= or each=, and when= from {', '.join(CADENCES)}")

    def decorate(judge: Callable[..., Iterator[Finding | Figure]]) -> Callable[..., None]:
        title, _, why = (inspect.getdoc(judge) or "").partition("\n")
        looked_for = (inspect.getdoc(select) or "").partition("\n")[0].rstrip(".")
        if not (title and why.strip() and looked_for):
            raise ValueError(f"check {id}: docstring with obligation and reason, and one on its subjects, wanted")
        if id in REGISTRY and REGISTRY[id].judge.__qualname__ != judge.__qualname__:
            raise ValueError(f"check {id} exists already, in {REGISTRY[id].module}")
        _, *asks = inspect.signature(judge).parameters
        REGISTRY[id] = Check(
            id, judge, select, each is not None, tuple(guide), tuple(when), severity, title.rstrip("."),
            " ".join(why.split()), judge.__module__, looked_for, tuple(asks), drill,
        )  # fmt: skip

        def test(pgc_case: Callable[[], None]) -> None:
            pgc_case()

        test.__name__, test.__doc__, test.__module__ = judge.__name__, judge.__doc__, judge.__module__
        test.pgconform_check = REGISTRY[id]  # type: ignore[attr-defined]
        return test

    return decorate


def evaluate(check: Check, evidence: Evidence, subjects: Sequence[Any] | None = None) -> Result:
    """Judge the subjects (all of the check's, where none are given) and say what came of it.

    Never raises NotVerified: that is the verdict ``broken``. TargetLost passes through. Sequences that a drill advanced
    are set back.
    """
    started = time.perf_counter()
    contract = evidence.contract
    found: list[Finding] = []
    figures: list[Figure] = []
    unverified: list[tuple[str, str]] = []
    empty: list[str] = []
    examined = 0
    hidden = set(evidence.catalog.unseen)
    attempts = _attempts(evidence)
    on_copies = "copies" in check.asks
    runs = evidence.copies is not None and evidence.copies.drill.runs(check.id) if on_copies else evidence.writing
    undeclared = check.by_contract and not (check.subjects(contract, evidence) if subjects is None else subjects)
    if check.drill and not runs and not undeclared:
        return Result(
            check=check.id, contract=contract.name, verdict=Verdict.SKIPPED, title=check.title, why=check.why,
            subject=subject_name(subjects[0]) if subjects else "", guide=check.guide, severity=check.severity,
            looked_for=check.looked_for, reason=COPIED if on_copies else DRILL, accepted=True,
        )  # fmt: skip
    given = check.subjects(contract, evidence) if subjects is None else subjects
    if hidden and not check.by_contract and any(_relations(subject) for subject in given):
        given = [*given, *(t for t in evidence.catalog.tables if str(t) in hidden)]  # they yield no policies now
    if undeclared:
        empty.append(f"the contract declares none: {_lower(check.looked_for)}")
    by_contract, judge = check.by_contract, check.judge  # subjects may be many thousands
    parts: list[Any] | None = None
    drilling = check.drill and not on_copies and bool(given)
    counted = sequences.values(evidence) if drilling else {}
    for subject in given:
        if hidden and (locked := hidden & _relations(subject)):
            unverified.append((subject_name(subject), LOCKED.format(", ".join(sorted(locked)))))
            continue
        if by_contract and (missing := _missing(subject, evidence.catalog)):
            table, what = missing
            if table in contract.tables:
                empty.append(f"{what} does not exist")
            else:  # no other check looks for it
                near = did_you_mean(what, map(str, evidence.catalog.tables))
                unverified.append((subject_name(subject), f"{what} does not exist{near}; correct the contract"))
            continue
        try:
            if parts is None:
                parts = [evidence.part(name) for name in check.asks]
            for said in judge(subject, *parts):
                if isinstance(said, Figure):
                    figures.append(said)
                else:
                    found.append(whole(said, check, evidence))
        except Nothing as nothing:
            _pass_on(nothing)
            empty.append(str(nothing))
        except TargetLost as error:
            _pass_on(error)
            raise
        except Exception as error:  # if ours, it must hide neither what was found before, nor the other subjects
            _pass_on(error)
            why = str(error) if isinstance(error, NotVerified) else own_error(error)
            unverified.append((subject_name(subject), why))
        else:
            examined += 1
    if why := sequences.restore(evidence, counted):
        unverified.append(("sequences", why))
    failing, waived = _waive(check, found, contract.waivers, evidence.today)
    name = subject_name(subjects[0]) if check.by_contract and subjects else ""
    accepted = contract.skips.get(check.id) or contract.skips.get(f"{check.id}:{name}", "")
    verdict, reason = _verdict(check, failing, waived, unverified, empty, examined, accepted)
    return Result(
        check=check.id, contract=contract.name, verdict=verdict, title=check.title, why=check.why, subject=name,
        guide=check.guide, severity=check.severity, examined=examined, looked_for=check.looked_for,
        findings=tuple(failing), waived=tuple(waived), reason=reason, accepted=bool(accepted) or undeclared,
        unverified=tuple(dict.fromkeys(unverified)), seconds=time.perf_counter() - started,
        attempts=_attempts(evidence) - attempts, figures=tuple(figures),
    )  # fmt: skip


def _attempts(evidence: Evidence) -> int:
    """What drills have tried so far; opens no connection for it."""
    drills: Database | None = vars(evidence).get("drills")
    return drills.attempts if drills else 0


def _pass_on(error: BaseException | None) -> None:
    """Raises the interrupt that was on its way when the error came up: with the session that an interrupt closed, what
    had to be done at the end failed, too, and that would let the run go on."""
    while error := error and error.__context__:
        if isinstance(error, KeyboardInterrupt):
            raise error


def own_error(error: Exception) -> str:
    """One line about an error of pgconform itself, with its place; PGC_DEBUG has the traceback printed."""
    if os.environ.get("PGC_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return f"pgconform's own error: {type(error).__name__} in {place}; set PGC_DEBUG=1 for the traceback"


def _relations(subject: Any) -> set[str]:
    """The relations that a subject is about: an object of the catalogue, a pair that begins with one, a promise."""
    first = subject[0] if isinstance(subject, tuple) else subject
    named = [getattr(first, "table", ""), *(name for name, _ in getattr(first, "needs", ()))]
    return {name for name in [*named, str(first) if hasattr(first, "row_security") else ""] if name}


def subject_name(subject: Any) -> str:
    """How a subject is called in ids and reports: an object by its name, a pair by its first part's."""
    return str(subject[0] if isinstance(subject, tuple) else subject)


def _verdict(
    check: Check, failing: list[Finding], waived: list[tuple[Finding, str]], unverified: list[tuple[str, str]],
    empty: list[str], examined: int, accepted: str,
) -> tuple[Verdict, str]:  # fmt: skip
    if failing:
        return Verdict.FAILED, ""
    if unverified:
        return Verdict.BROKEN, unverified[0][1]
    if waived:
        return Verdict.WAIVED, ""
    if examined:
        return Verdict.PASSED, ""
    why = "; ".join(dict.fromkeys(empty)) or f"nothing to examine: {_lower(check.looked_for)}"
    return Verdict.SKIPPED, f"{why} (accepted: {accepted})" if accepted else why


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _missing(subject: Any, catalog: Catalog) -> tuple[str, str] | None:
    """Of which relation what is not there that a subject needs; it is another check's finding if it is declared."""
    for table, wanted in getattr(subject, "needs", ()):
        present = catalog.table(table)
        if present is None:
            return str(table), str(table)
        for name in wanted:
            if present.column(name) is None:
                return str(table), f"{table}, column {name}"
    if wanted := getattr(subject, "vector_column", None):
        column, kind = wanted
        stored = catalog.table(subject.table)
        if not alike(catalog.comparable(stored.column(column) if stored else None), kind):
            return subject.table, f"a vector column {column} of {subject.table}"
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did the contract mean ...?``, where something is called nearly so."""
    near = difflib.get_close_matches(word, list(known), 1, 0.8)
    return f"; did the contract mean {near[0]}?" if near else ""


def _waive(
    check: Check, found: list[Finding], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[list[Finding], list[tuple[Finding, str]]]:
    failing: list[Finding] = []
    waived: list[tuple[Finding, str]] = []
    for finding in sorted(found, key=lambda f: f.key):
        waiver = next((w for w in waivers if covers(w, check.id, finding) and today <= w.until), None)
        if waiver is None:
            failing.append(finding)
        else:
            waived.append((finding, f"{waiver.reason} ({waiver.owner}, until {waiver.until})"))
    return failing, waived


def covers(waiver: Waiver, check_id: str, finding: Finding) -> bool:
    """True when the waiver speaks of this finding, whether or not it has ended."""
    return (
        waiver.check == check_id
        and waiver.object == finding.object
        and (not waiver.detail or waiver.detail == finding.detail)
    )


def _arguments(function: Callable[..., Any], evidence: Evidence) -> list[Any]:
    return [evidence.part(name) for name in inspect.signature(function).parameters]
