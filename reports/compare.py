"""What ``pgconform compare`` prints: findings that came and went, and what drifted in the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgconform.changes import GONE, Change, as_past, changes
from pgconform.drift import CHANGES, CLOSES, OPENS, Drift, drift

from . import catalog, findings

_ORDER = (OPENS, CLOSES, CHANGES)


@dataclass(frozen=True)
class Compared:
    """Two runs. ``drifts`` has the contracts whose catalogues both runs kept; ``notes`` say what is not compared."""

    changes: list[Change]
    drifts: dict[str, list[Drift]]
    notes: list[str]

    @property
    def worse(self) -> bool:
        """True where something is found that was not, opens, or is known less."""
        opened = any(d.effect == OPENS for found in self.drifts.values() for d in found)
        return opened or bool(self.notes) or any(change.worse for change in self.changes)


def compared(before: Path, now: Path) -> Compared:
    """The runs of two directories, the earlier one first. Raises Mistake."""
    old, new = findings.read(before), findings.read(now)
    notes = [f"{path}: {why}" for path, run in ((before, old), (now, new)) for why in run.incomplete()[:1]]
    asked = {contract.name for contract in old.contracts} & {contract.name for contract in new.contracts}
    if not asked:
        notes.append("the two runs have no contract in common")
    new.past = {name: past for name, past in as_past(old).items() if name in asked}
    pictures = [catalog.read(path if path.is_dir() else path.parent) for path in (before, now)]
    both = pictures[0].keys() & pictures[1].keys() & asked
    notes += [f"{name}: no {catalog.FILE} of both runs: what drifted is not known" for name in sorted(asked - both)]
    drifts = {name: sorted(drift(pictures[0][name], pictures[1][name]), key=_rank) for name in sorted(both)}
    found = [change for change in changes(new, unasked=True) if change.result.contract in asked]
    return Compared(found, drifts, notes)


def _rank(found: Drift) -> tuple[int, str, str]:
    return _ORDER.index(found.effect), found.object, found.text


def as_text(found: Compared) -> str:
    return "\n".join(_lines(found)) or "nothing changed"


def _lines(found: Compared) -> Iterator[str]:
    yield from (f"not compared: {note}" for note in found.notes)
    for change in sorted(found.changes, key=lambda c: c.kind == GONE):
        key = f": {change.key}" if change.key else ""
        yield f"{change.kind}: {change.result.contract}: {change.result.check}{key}"
    for contract, drifts in found.drifts.items():
        yield from (f"{d.effect}: {contract}: {d.object}: {d.text}" for d in drifts)


def as_json(found: Compared) -> str:
    """One document: worse, notes, changes of findings, drifts of the catalogue."""
    return json.dumps({
        "worse": found.worse,
        "notes": found.notes,
        "changes": [
            {"kind": c.kind, "contract": c.result.contract, "check": c.result.check, "subject": c.result.subject,
             "key": c.key, "worse": c.worse}
            for c in found.changes
        ],
        "drifts": [
            {"contract": contract, "effect": d.effect, "object": d.object, "text": d.text}
            for contract, drifts in found.drifts.items() for d in drifts
        ],
    }, indent=1)  # fmt: skip
