"""The faults that prove a check, as its explanation shows one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

_LONGEST = 25  # lines of a fault that are shown


@dataclass(frozen=True)
class Shown:
    """A fault: what it is about, its SQL, the findings of the check itself, and what mends it where no remedy can."""

    name: str
    about: str
    sql: str
    finds: tuple[str, ...]
    mend: str


def fault(check: str) -> Shown | None:
    """The fault that shows a check best: it has the fewest findings, then the shortest text. None without one."""
    folder = files("pgconform.fixtures") / "faults" / check
    if not folder.is_dir():
        return None
    found = []
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if path.name.endswith(".sql") and not path.name.startswith("decoy"):
            text = path.read_text(encoding="utf-8")
            finds = _header(text, "finds")
            own = tuple(key.removeprefix(f"{check}: ") for key in finds if key.startswith(f"{check}: "))
            shown = Shown(path.name, " ".join(_header(text, "about")), _sql(text), own, " ".join(_header(text, "mend")))
            found.append((len(finds), len(text), shown))
    return min(found, key=lambda item: item[:2])[2] if found else None


def _header(text: str, word: str) -> list[str]:
    start = f"-- {word}: "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


def _sql(text: str) -> str:
    lines = text.splitlines()
    begins = next((n for n, line in enumerate(lines) if not line.startswith("-- ")), len(lines))
    sql = lines[begins:]
    return "\n".join([*sql[:_LONGEST], "-- ..."] if len(sql) > _LONGEST else sql).strip()
