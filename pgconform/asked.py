"""What a run was asked for, made out of what was typed. Never talks to pytest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgconform.model import CADENCES, Mistake

if TYPE_CHECKING:
    from pgconform.contract import Contract


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
