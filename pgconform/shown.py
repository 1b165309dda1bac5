"""The faults that prove a check, as its explanation shows one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

REMEDIES = "remedies.json"  # what was printed for the faults shown: make remedies
_LONGEST = 25  # lines of a fault that are shown


@dataclass(frozen=True)
class Shown:
    """A fault: what it is about, its SQL, the findings of the check itself, and what mends it where no remedy can.

    ``committed`` says that it holds only once it is committed; ``observed`` and ``remedy`` are what was printed for it,
    '' where that is not known.
    """

    name: str
    about: str
    sql: str
    finds: tuple[str, ...]
    mend: str
    committed: bool = False
    observed: str = ""
    remedy: str = ""


def fault(check: str) -> Shown | None:
    """The fault that shows a check best: it can be undone, has few findings, is short. None without one."""
    folder = files("pgconform.fixtures") / "faults" / check
    if not folder.is_dir():
        return None
    found = []
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if path.name.endswith(".sql") and not path.name.startswith("decoy"):
            text = path.read_text(encoding="utf-8")
            shown = _shown(check, path.name, text)
            found.append((shown.committed, len(_header(text, "finds")), len(text), shown))
    return min(found, key=lambda item: item[:3])[3] if found else None


def _shown(check: str, name: str, text: str) -> Shown:
    own = [key.removeprefix(f"{check}: ") for key in _header(text, "finds") if key.startswith(f"{check}: ")]
    told = _printed().get(check, {})
    return Shown(
        name, " ".join(_header(text, "about")), _sql(text), tuple(own), " ".join(_header(text, "mend")),
        bool(_header(text, "committed")), told.get("observed", ""), told.get("remedy", ""),
    )  # fmt: skip


@cache
def _printed() -> dict[str, dict[str, str]]:
    path = files("pgconform.fixtures") / REMEDIES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _header(text: str, word: str) -> list[str]:
    start = f"-- {word}: "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


def _sql(text: str) -> str:
    lines = text.splitlines()
    begins = next((n for n, line in enumerate(lines) if not line.startswith("-- ")), len(lines))
    return shortened("\n".join(lines[begins:]))


def shortened(sql: str) -> str:
    """The SQL, or as much of it as is shown."""
    lines = sql.strip().splitlines()
    return "\n".join([*lines[:_LONGEST], "-- ..."] if len(lines) > _LONGEST else lines)
