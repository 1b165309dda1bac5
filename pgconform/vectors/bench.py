"""All searches of one contract: measured, judged, compared, and the cheapest good setting of each index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pgconform.history import SEARCHES
from pgconform.model import Figure, Mistake, NotVerified
from pgconform.vectors import absent, baseline, cases, causes, gates, sweep
from pgconform.vectors.measuring import Measured, Measuring, Sessions

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.subjects import Searching
    from pgconform.vectors.baseline import Baseline
    from pgconform.vectors.gates import Problem
    from pgconform.vectors.sweep import Point

RATE_SECONDS = 1.0
MOST_CLIENTS = 32
LEAST, MOST = 10, 10_000  # queries: after five executions the server may change the plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much to measure: queries a case, clients at once, and whether to try settings."""

    queries: int = 40
    clients: tuple[int, ...] = (1, 2)
    curves: bool = True
    file: Path | None = None

    @classmethod
    def of(cls, queries: str, clients: int, curves: bool) -> Wanted:
        """From what was typed: a number of queries, or a file of them. Raises Mistake."""
        if not 1 <= clients <= MOST_CLIENTS:
            raise Mistake(f"--clients: wanted 1 to {MOST_CLIENTS}, not {clients}")
        counts = tuple(sorted({min(clients, 2**n) for n in range(MOST_CLIENTS)}))
        if queries.isascii() and queries.isdigit():
            if not LEAST <= int(queries) <= MOST:
                raise Mistake(f"--queries: wanted {LEAST} to {MOST}, not {queries}")
            return cls(int(queries), counts, curves)
        return cls(clients=counts, curves=curves, file=Path(queries))


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

    @property
    def status(self) -> int:
        """0 as promised, 1 a problem, 3 something could not be measured, 5 nothing was."""
        return 1 if self.problems else 3 if self.unverified else 0 if self.now.cases else 5

    def figures(self) -> list[Figure]:
        """Recall and times of each case, for the history."""
        found = []
        for case in self.now.cases.values():
            about = f"{SEARCHES}{case.case}"
            found += [Figure(f"{about}: recall", case.recall), Figure(f"{about}: p95", case.p95, "ms")]
            found += [Figure(f"{about}: calibrations", case.ratio), Figure(f"{about}: pages", case.buffers)]
        return found


def measure(
    evidence: Evidence, sessions: Sessions, wanted: Wanted, before: Baseline | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Outcome:  # fmt: skip
    """Measures every declared search, one after the other, and says what is wrong. ``told`` hears what is done next.

    Raises Mistake for a file of queries that do not fit, TargetLost.
    """
    here = baseline.circumstances(evidence)
    outcome = Outcome(evidence.contract.name, baseline.Baseline(evidence.contract.name, here, {}))
    if before:
        outcome.differences = before.circumstances.differences(here)
    outcome.problems += absent.lost(evidence, before)
    for search in cases.every(evidence):
        told(f"{search.function}: the exact answer")
        try:
            _one(search, evidence, sessions, wanted, before, outcome, told)
        except NotVerified as reason:
            outcome.unverified[search.function] = str(reason)
    if before:
        outcome.uncompared = absent.unmatched(before, outcome.now.cases.values())
    return outcome


def _one(
    search: Searching, evidence: Evidence, sessions: Sessions, wanted: Wanted, before: Baseline | None,
    outcome: Outcome, told: Callable[[str], None],
) -> None:  # fmt: skip
    dimension = search.vector.dimension
    queries = cases.read(wanted.file, dimension) if wanted.file else cases.drawn(search, evidence, wanted.queries)
    measuring = Measuring(search, evidence, queries, sessions)
    spec = search.promise.search
    assert spec
    for number, case in enumerate(measuring.cases):
        told(case.name)
        found = measuring.measured(number)
        if number == len(measuring.cases) - 1 - (measuring.cases[-1].rows == 0):  # the largest tenant's
            rates = {str(clients): measuring.rate(number, clients, RATE_SECONDS) for clients in wanted.clients}
            found = msgspec.structs.replace(found, rates=rates)
        outcome.now.cases[case.name] = found
        for problem in _problems(measuring, number, found, before, outcome):
            outcome.problems.append(causes.explained(problem, measuring, number, found))
    if wanted.curves:
        told(f"{search.function}: settings of its index")
        points = outcome.curves[search.function] = sweep.curve(measuring)
        best = sweep.cheapest(points, spec.recall)
        outcome.advice[search.function] = sweep.setting_sql(measuring, best.settings) if best else ""


def _problems(
    measuring: Measuring, number: int, found: Measured, before: Baseline | None, outcome: Outcome
) -> Iterator[Problem]:
    spec = measuring.search.promise.search
    assert spec
    told: set[str] = set()
    for problem in gates.promised(found, spec):
        told.add(problem.kind)
        yield problem
    base = absent.like(found, before) if before else None
    if base and base.asked == found.asked:
        for problem in gates.compared(found, base, not outcome.differences, lambda: measuring.ratio(number)):
            if problem.kind not in told:
                yield problem
