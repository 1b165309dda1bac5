"""Procedures that make or correct rows, stopped at a write or run twice at once: judged by what runs in peace leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from pgconform.catalog import Catalog
from pgconform.model import Finding, NotVerified
from pgconform.procedures.stage import Drilled, Point, Stage, State, staged, whole

if TYPE_CHECKING:
    from pgconform.recovery.copies import Copies

Values = dict[str, object]


@dataclass
class Trial:
    """A procedure, the values for two runs of it, and what is looked at afterwards.

    ``values`` are asked for on each copy anew, and are the same on each; ``state`` is the same wherever the same came
    of it. There is one copy at a time.
    """

    subject: Drilled
    catalog: Catalog
    copies: Copies
    values: Callable[[Stage], Sequence[Values]]
    state: Callable[[Stage], State]
    _known: dict[tuple[int, ...], State] = field(default_factory=dict)

    def alone(self, *order: int) -> State:
        """What runs with these values leave, one after another."""
        if order not in self._known:
            with staged(self.copies, self.subject) as stage:
                values = self.values(stage)
                for number in order:
                    stage.values = values[number]
                    stage.run()
                self._known[order] = self.state(stage)
        return self._known[order]

    def points(self) -> list[Point]:
        """Where it can be held, in the order of first writes. Raises NotVerified where it writes nothing."""
        with staged(self.copies, self.subject) as stage:
            stage.values = self.values(stage)[0]
            if found := stage.points(whole(self.catalog)):
                return found
        raise NotVerified(f"{self.subject}: it was never seen writing a table; correct what the contract names")

    def differing(self, found: State, wanted: State, words: str, kind: str) -> list[Finding]:
        """A finding for each table that holds something else."""
        names = [name for name, held in found.items() if held != wanted[name]]
        return [Finding(name, words, self.subject.mends(name, self.catalog), kind) for name in names]


def interrupted(trial: Trial) -> Iterator[Finding]:
    """What is neither there as a whole nor absent where its session, or the server, was killed at a write; and what a
    next run, and another crash, do not leave as a run in peace does."""
    before, after, points, reached = trial.alone(), trial.alone(0), trial.points(), False
    for number, point in enumerate([*points, points[-1]]):
        crash = number == len(points)
        when = f"after {'the server was killed' if crash else 'its session was ended'} at {told(point)}"
        with staged(trial.copies, trial.subject) as stage:
            stage.values = trial.values(stage)[0]
            stopped = stage.stopped(point, crash=crash)
            reached = reached or stopped
            if not stopped or (left := trial.state(stage)) == after:
                continue
            found = trial.differing(left, before, f"{when}, it is neither as before nor as a run leaves it", "half")
            if not found:
                stage.run()
                if crash:
                    stage.crash()
                words = f"{when}, a next run{' and another crash' * crash}, it is not as a run leaves it"
                found = trial.differing(trial.state(stage), after, words, "unfinished")
        if found:
            yield from found
            return
    if not reached:
        raise NotVerified(f"{trial.subject}: it could not be held at a write; correct what the contract names")


def undisturbed(trial: Trial, last: int = 0) -> Iterator[Finding]:
    """What two runs at once leave that no two runs leave one after another, whichever comes first; a run that was
    refused counts as none. Writes of a table behind the ``last`` one, where there is one, are not tried."""
    for point in (p for p in trial.points() if not last or p[1] <= last):
        with staged(trial.copies, trial.subject) as stage:
            runs = stage.crossed(point, trial.values(stage))
            found = trial.state(stage)
        done = [number for number, run in enumerate(runs) if not run.error]
        allowed = [trial.alone(*order) for order in permutations(done)]
        if found not in allowed:
            words = f"where a second run began at {told(point)}, it is not as one run and then the other leave it"
            yield from trial.differing(found, allowed[0], words, "crossed")
            return


def told(point: Point) -> str:
    """Where that is, in words."""
    return f"write {point[1]} of {point[0]}"
