"""What a run was asked for, made out of what was typed. Never talks to pytest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.model import CADENCES, Effort, Mistake

if TYPE_CHECKING:
    from pgconform.contract import Contract


OPTIONS = {
    "contract": "contract to check: a bundled one's name, or a TOML file (default: all bundled ones)",
    "target": "where the databases are: embedded[:16|18], container[:IMAGE], live[:URI] (default: embedded)",
    "effort": "how hard to attack: quick, default or nightly",
    "seed": "what the attacks are drawn from (default: 1)",
    "drill": "drills that a live target is to undergo, which read it and write elsewhere: restore, or none (default)",
    "out": "directory of the reports (default: reports/out)",
    "history": "directory where runs are recorded, or none (default: history, beside that of the reports)",
}


@dataclass(frozen=True)
class Asked:
    """What a run was asked for besides its contracts."""

    target: str
    effort: Effort
    out: Path
    history: Path | None
    copied: bool  # drills on copies run, whatever the target

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Asked:
        """From what was typed, '' where nothing was. Raises Mistake."""
        out = Path(given["out"] or "reports/out")
        effort = Effort.of(given["effort"] or "default", given["seed"] or "1")
        history = None if given["history"] == "none" else Path(given["history"] or out.parent / "history")
        if given["drill"] not in ("", "none", "restore"):
            raise Mistake(f"unknown drill {given['drill']!r}; use restore or none")
        return cls(given["target"] or "embedded", effort, out, history, given["drill"] == "restore")


def chosen(names: str) -> list[Contract]:
    """The contracts that are named, separated by commas; all bundled ones for ''. Raises ContractError."""
    from pgconform.catalogue_of_checks import load as all_checks
    from pgconform.contract_file import ContractError, bundled, load, resolve
    from pgconform.contract_words import hint

    contracts = [load(resolve(name)) for name in (names.split(",") if names else sorted(bundled()))]
    for contract in contracts:
        named = [("skips", name.partition(":")[0]) for name in contract.skips]
        for section, name in [*named, *(("waivers", waiver.check) for waiver in contract.waivers)]:
            if name not in (known := all_checks()):
                raise ContractError(f"contract {contract.name}: [{section}] {name}: no such check{hint(name, known)}")
    return contracts


def scheduled(expression: str) -> None:
    """Raises Mistake where pytest's -m names a schedule that there is not: it would select nothing."""
    unknown = set(re.findall(r"\w+", expression)) - {*CADENCES, "and", "or", "not"}
    if unknown:
        raise Mistake(f"no schedule {', '.join(sorted(unknown))}; -m takes {', '.join(CADENCES)}")


def names_suites(arguments: Iterable[str]) -> bool:
    """True where one of pytest's arguments is a suite of checks."""
    homes = {Path(__file__).parent.parent / "suites", Path(__file__).parent / "suites"}
    for argument in arguments:
        path = argument.partition("::")[0]
        if path.startswith("pgconform.suites") or homes & {Path(path).resolve(), *Path(path).resolve().parents}:
            return True
    return False
