"""What changed between an earlier run and this one: findings that are new or gone, promises that lost their verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.history import Past
from pgconform.model import Result, Verdict
from pgconform.results import Run

NEW, GONE, UNASKED = "new", "gone", "found where the earlier run did not ask"
_LOST = {Verdict.BROKEN: "cannot be verified any more", Verdict.SKIPPED: "has nothing to examine any more"}


@dataclass(frozen=True)
class Change:
    """``kind`` is 'new', 'gone', or says what the verdict lost; ``key`` is the finding's, or the subject."""

    kind: str
    result: Result
    key: str

    @property
    def worse(self) -> bool:
        """True where the database conforms less than before, or that it does is known less."""
        return self.kind != GONE


def changes(run: Run, unasked: bool = False) -> Iterator[Change]:
    """Beside the last run of the same database, where both asked; findings that are waived are no change.

    With ``unasked``, also what is found where the earlier run did not ask.
    """
    for result in run.results:
        past, case = run.past.get(result.contract), (result.check, result.subject)
        if past is None or case not in past.keys:
            yield from (Change(UNASKED, result, finding.key) for finding in result.findings if unasked)
            continue
        if result.verdict in _LOST:
            last = next((verdict for verdict in reversed(past.verdicts[case]) if verdict), "")
            if last not in ("", str(result.verdict)):
                yield Change(_LOST[result.verdict], result, result.subject)
            continue
        now, before = {finding.key for finding in result.findings}, past.keys[case]
        kept = {finding.key for finding, _ in result.waived}
        yield from (Change(NEW, result, key) for key in sorted(now - before))
        yield from (Change(GONE, result, key) for key in sorted(before - now - kept))


def as_past(run: Run) -> dict[str, Past]:
    """A finished run as another one's past, by contract."""
    found = {}
    for contract in {result.contract for result in run.results}:
        mine = {(r.check, r.subject): r for r in run.results if r.contract == contract}
        keys = {case: frozenset(f.key for f in r.findings) for case, r in mine.items()}
        figures = {f.name: [(run.started.timestamp(), f.value)] for r in mine.values() for f in r.figures}
        verdicts: dict[tuple[str, str], tuple[str, ...]] = {case: (str(r.verdict),) for case, r in mine.items()}
        found[contract] = Past(run.started.timestamp(), keys, verdicts, figures)
    return found
