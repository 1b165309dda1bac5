"""All searches of one contract: measured, judged, compared, and the cheapest good setting of each index."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pgconform.history import SEARCHES
from pgconform.model import Figure, Mistake, NotVerified
from pgconform.progress import Meter
from pgconform.vectors import absent, advice, baseline, cases, causes, gates
from pgconform.vectors.measuring import PACE, Measured, Measuring, Sessions

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.subjects import Searching
    from pgconform.vectors.baseline import Baseline
    from pgconform.vectors.gates import Problem
    from pgconform.vectors.sweep import Point

LOAD_SECONDS = 1.0
MOST_CLIENTS = 32
LEAST, MOST = 10, 10_000  # queries: after five executions the server may change the plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much to measure: queries a case, clients at once, whether to try settings, and seconds: for timing a case
    again and again, and for everything (what then is left is not begun)."""

    queries: int = 40
    clients: tuple[int, ...] = (1, 2)
    curves: bool = True
    file: Path | None = None
    pace: float = PACE
    seconds: float = math.inf

    @classmethod
    def of(cls, queries: str, clients: int, curves: bool, seconds: float = math.inf) -> Wanted:
        """From what was typed: a number of queries, or a file of them. Raises Mistake."""
        if not seconds > 0:
            raise Mistake(f"--seconds: wanted a number above 0, not {seconds:g}")
        if not 1 <= clients <= MOST_CLIENTS:
            raise Mistake(f"--clients: wanted 1 to {MOST_CLIENTS}, not {clients}")
        counts = tuple(sorted({min(clients, 2**n) for n in range(MOST_CLIENTS)}))
        if queries.isascii() and queries.isdigit():
            if not LEAST <= int(queries) <= MOST:
                raise Mistake(f"--queries: wanted {LEAST} to {MOST}, not {queries}")
            return cls(int(queries), counts, curves, seconds=seconds)
        return cls(clients=counts, curves=curves, file=Path(queries), seconds=seconds)


@dataclass
class Outcome:
    """What came of one contract's searches."""

    contract: str
    now: Baseline
    problems: list[Problem] = field(default_factory=list)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)  # by function: the cheapest good setting, as SQL
    unverified: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)  # from the baseline's circumstances
    uncompared: list[str] = field(default_factory=list)  # cases of the baseline that nothing was compared with, and why
    left: list[str] = field(default_factory=list)  # what was not begun, since the time was over

    @property
    def status(self) -> int:
        """0 as promised, 1 a problem, 3 something could not be measured, 5 nothing was."""
        return 1 if self.problems else 3 if self.unverified or self.left else 0 if self.now.cases else 5

    @property
    def refusal(self) -> str:
        """Why this should not become the baseline; '' where it may."""
        kinds = ", ".join(sorted({problem.kind for problem in self.problems}))
        if kinds or self.left:
            return f"it has problems ({kinds})" if kinds else "it was not measured to the end"
        return f"it could not be measured in full ({', '.join(self.unverified)})" if self.unverified else ""

    def figures(self) -> list[Figure]:
        """Recall and times of each case, for the history."""
        found = []
        for case in self.now.cases.values():
            about = f"{SEARCHES}{case.case}"
            found += [Figure(f"{about}: recall", case.recall), Figure(f"{about}: p95", case.p95, "ms")]
            found += [Figure(f"{about}: calibrations", case.ratio), Figure(f"{about}: pages", case.buffers)]
            for clients, load in case.clients.items():
                found += [Figure(f"{about}: by {clients} at once", load.rate, "searches/s")]
                found += [Figure(f"{about}: p95 by {clients} at once", load.p95, "ms")]
        return found


def measure(
    evidence: Evidence, sessions: Sessions, wanted: Wanted, before: Baseline | None = None,
    meter: Meter | None = None,
) -> Outcome:  # fmt: skip
    """Measures every declared search, one after the other, and says what is wrong. The ``meter`` follows.

    Raises Mistake for a file of queries that do not fit, TargetLost.
    """
    here = baseline.circumstances(evidence)
    outcome = Outcome(evidence.contract.name, baseline.Baseline(evidence.contract.name, here, {}))
    if before:
        outcome.differences = before.circumstances.differences(here)
    outcome.problems += absent.lost(evidence, before)
    ends, meter = time.monotonic() + wanted.seconds, meter or Meter()

    def begun(what: str) -> bool:
        """False when there is no time for it."""
        if time.monotonic() > ends:
            outcome.left.append(what)
            return False
        meter.now = what
        return True

    for search in meter.each(list(cases.every(evidence))):
        try:
            if begun(f"{search.function}: the exact answer, and all that is judged by it"):
                _one(search, evidence, sessions, wanted, before, outcome, begun, meter)
        except NotVerified as reason:
            outcome.unverified[search.function] = str(reason)
    if before:
        outcome.uncompared = absent.unmatched(before, outcome.now.cases.values(), outcome.left)
    return outcome


def _one(
    search: Searching, evidence: Evidence, sessions: Sessions, wanted: Wanted, before: Baseline | None,
    outcome: Outcome, begun: Callable[[str], bool], meter: Meter,
) -> None:  # fmt: skip
    if wanted.file:
        queries = cases.read(wanted.file, search.vector)
    elif search.vector.queries:
        queries = cases.read(Path(search.vector.queries), search.vector)[: wanted.queries]
    else:
        queries = cases.drawn(search, evidence, wanted.queries)
    measuring = Measuring(search, evidence, queries, sessions, wanted.pace)
    spec = search.promise.search
    assert spec
    owning = [number for number, case in enumerate(measuring.cases) if case.rows]
    for number, case in meter.each(list(enumerate(measuring.cases))):
        if not begun(case.name):
            continue
        found = measuring.measured(number)
        if wanted.clients and number in (owning[0], owning[-1]) and begun(f"{case.name}: clients at once"):
            loads = {str(clients): measuring.load(number, clients, LOAD_SECONDS) for clients in wanted.clients}
            found = msgspec.structs.replace(found, clients=loads)
        outcome.now.cases[case.name] = found
        for problem in _problems(measuring, number, found, before, outcome):
            outcome.problems.append(causes.explained(problem, measuring, number, found))
    if wanted.curves and begun(f"{search.function}: settings of its index"):
        points = outcome.curves[search.function] = advice.curve(measuring)
        outcome.advice[search.function] = advice.found(measuring, points).sql if points else ""


def _problems(
    measuring: Measuring, number: int, found: Measured, before: Baseline | None, outcome: Outcome
) -> Iterator[Problem]:
    search = measuring.search
    assert search.promise.search
    told: set[str] = set()
    for problem in gates.promised(found, search.promise.search):
        told.add(problem.kind)
        yield problem
    base = absent.like(found, before) if before else None
    if before and base and base.asked == found.asked:
        alike = before.circumstances == outcome.now.circumstances
        if base.asking != found.asking:
            outcome.differences = list(dict.fromkeys([*outcome.differences, f"queries of {search.function}"]))
        for problem in gates.compared(found, base, alike, lambda: measuring.ratio(number)):
            if problem.kind not in told:
                yield problem
