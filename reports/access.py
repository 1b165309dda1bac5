"""The access report: for each contract the matrix of role, relation and command, declared beside observed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgconform.contract import COMMANDS
from pgconform.judging import SHOWN
from pgconform.results import CONFORMS, FINDINGS, NOT_VERIFIED, NOTHING

if TYPE_CHECKING:
    from pgconform.attacks.access import Cell
    from pgconform.model import Effort

FORMAT = 1  # raised when a key changes its meaning or goes away
WIDTH = 120
_NAME = 38  # a longer relation's name is shortened; what differs is listed below the table in full
_FEW = 5  # names of one kind that a line lists
_SHORT = {"none": "-", "at most own": "own*"}
_LEGEND = {
    "at most own": "own*: granted, and rows of others are refused; no session of the role owns a row",
    "granted": "granted: by the catalogue's privileges; nothing was written, so whose rows pass was not tried",
    "foreign": "foreign: rows of others pass, own ones do not",
    "some": "some: not all of the rows that should pass do",
    "untried": "untried: granted, but there is no row to try with",
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """What was observed of one contract's database; ``facts`` say what was tested, never how it was reached."""

    contract: str
    facts: str
    cells: tuple[Cell, ...]
    attempts: int = 0
    services: tuple[str, ...] = ()  # roles that no session signs in as


def status(matrices: Sequence[Matrix]) -> tuple[int, str]:
    """Exit status, and one line that says why."""
    cells = [cell for matrix in matrices for cell in matrix.cells]
    differing, troubled = sum(c.differs for c in cells), sum(bool(c.trouble) for c in cells)
    if differing:
        more = f", {troubled} could not be verified" if troubled else ""
        return FINDINGS, f"{differing} of {len(cells)} permissions are not as declared{more}"
    if troubled:
        return NOT_VERIFIED, f"{troubled} of {len(cells)} permissions could not be verified"
    if not cells:
        return NOTHING, "nothing was examined: the contracts declare no relation or no role"
    granted = sum(c.observed == "granted" for c in cells)
    more = f", {granted} of them by the privileges alone" if granted else ""
    return CONFORMS, f"all {len(cells)} permissions are as declared{more}"


def as_json(matrices: Sequence[Matrix], effort: Effort) -> str:
    code, reason = status(matrices)
    document = {
        "format": FORMAT, "status": code, "reason": reason, "effort": effort.level, "seed": effort.seed,
        "contracts": [
            {
                "contract": m.contract, "facts": m.facts, "attempts": m.attempts, "services": list(m.services),
                "permissions": [*map(_cell, m.cells)],
            }
            for m in matrices
        ],
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=True)


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "relation": cell.relation, "role": cell.role, "command": cell.command, "declared": cell.declared or None,
        "observed": cell.observed, "verdict": "unverified" if cell.trouble else "differs" if cell.differs else "agrees",
        "why": cell.trouble or cell.why,
    }  # fmt: skip


def as_text(matrices: Sequence[Matrix], effort: Effort) -> str:
    lines: list[str] = []
    for matrix in matrices:
        lines += [f"{matrix.contract} ({matrix.facts})", "", *_tables(matrix.cells)]
        if matrix.services:
            lines += [f"{', '.join(matrix.services)}: by the catalogue's privileges and policies; nobody signs in so"]
        for part in (_legend, _differences, _troubles):
            if told := list(part(matrix.cells)):
                lines += [*told, ""]
    if made := sum(matrix.attempts for matrix in matrices):
        lines += [f"{made:,} attempts, each undone; effort {effort.level}, seed {effort.seed}"]
    code, reason = status(matrices)
    return "\n".join(_printable(line).rstrip() for line in [*lines, f"exit {code}: {reason}"])


def _tables(cells: Sequence[Cell]) -> Iterator[str]:
    """As many roles side by side as the width takes; the others below."""
    names = list(dict.fromkeys(cell.relation for cell in cells))
    undeclared = {cell.relation for cell in cells if not cell.declared}
    labels = [_shortened(name, " (undeclared)" if name in undeclared else "") for name in names]
    first = max(map(len, labels), default=0)
    blocks: list[tuple[int, list[list[str]]]] = []
    for role in dict.fromkeys(cell.role for cell in cells):
        group = _group(role, names, [cell for cell in cells if cell.role == role])
        width = max(map(len, group))
        if not blocks or blocks[-1][0] + 3 + width > WIDTH:
            blocks.append((first, []))
        blocks[-1] = (blocks[-1][0] + 3 + width, [*blocks[-1][1], [line.ljust(width) for line in group]])
    for _, groups in blocks:
        for lines in zip(["", "", *labels], *groups, strict=True):
            yield "   ".join([lines[0].ljust(first), *lines[1:]])
        yield ""


def _group(role: str, names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """One role's columns: its name, the commands, and a line for each relation."""
    shown = {(cell.relation, cell.command): _shown(cell) for cell in cells}
    rows = [[command[:3] for command in COMMANDS], *([shown[name, command] for command in COMMANDS] for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [role, *(" ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]


def _shown(cell: Cell) -> str:
    observed = _SHORT.get(cell.observed, cell.observed)
    declared = _SHORT.get(cell.declared, cell.declared)
    if cell.trouble:
        return f"{declared} ?".strip()
    if not cell.differs:
        return observed
    return f"{declared} -> {observed} !" if declared else f"{observed} !"


def _shortened(name: str, mark: str) -> str:
    room = _NAME - len(mark)
    name = _printable(name)
    return (name if len(name) <= room else f"{name[: room // 2 - 2]}...{name[-(room // 2 - 1) :]}") + mark


def _legend(cells: Sequence[Cell]) -> Iterator[str]:
    """The words that the contract does not have, where they stand in the table."""
    seen = {cell.observed for cell in cells if not cell.trouble}
    yield from (text for word, text in _LEGEND.items() if word in seen)
    if any(cell.differs for cell in cells):
        yield "A -> B !: A is declared, B was observed; -: none"
    if any(cell.trouble for cell in cells):
        yield "A ?: A is declared, and could not be verified"


def _differences(cells: Sequence[Cell]) -> Iterator[str]:
    differing = [cell for cell in cells if cell.differs]
    if differing:
        yield "not as declared:"
    for cell in differing[:SHOWN]:
        what = f"{cell.declared or 'nothing'} declared, {cell.observed} observed"
        yield f"  {cell.relation}, {cell.role}, {cell.command}: {what}"
        if cell.why:
            yield f"    {cell.why}"
    if len(differing) > SHOWN:
        yield f"  ... and {len(differing) - SHOWN} more: --format=json has all"


def _troubles(cells: Sequence[Cell]) -> Iterator[str]:
    """One block for each reason."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.trouble:
            reasons.setdefault(cell.trouble, []).append(f"{cell.relation} {cell.role} {cell.command}")
    for reason, names in reasons.items():
        more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
        yield from (f"not verified: {reason}", f"  {', '.join(names[:_FEW])}{more}")


def _printable(text: str) -> str:
    """Without what would break a line of the table: names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
