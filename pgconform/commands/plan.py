"""pgconform plan: what a run would do, without a word to the database."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.commands.common import described, given, show, target_of

if TYPE_CHECKING:
    from pgconform.checks import Check
    from pgconform.commands.common import Commands
    from pgconform.contract import Contract
    from pgconform.model import Drill

EPILOG = """\
examples:
  pgconform plan --contract=contract.toml --target=live
  pgconform plan --contract=muva

No connection is opened and no server started: it says what the contract asks for. Checks that look at the catalogue
find out on the way how many objects there are. exit status: 0, or 4 where the contract or such a kind of target cannot
be used; no address is tried
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "plan", help="what would run, on how much, with which privileges; nothing is sent", **described(EPILOG)
    )
    target_of(command)
    command.add_argument("--drill", metavar="NAME", help="as for run")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """What each contract would have checked on the target, and what that needs."""
    from pgconform.asked import OPTIONS, Asked, chosen
    from pgconform.targets import referenced, split

    target, drill = given(known, "target", "embedded"), given(known, "drill")
    blank = dict.fromkeys(OPTIONS, "")
    asked = Asked.of({**blank, "target": target, "drill": drill})
    contracts, (kind, _identifier) = chosen(given(known, "contract")), split(target)
    if kind != "live" and not given(known, "prepare"):
        referenced(contracts)
    for contract in contracts:
        show("\n".join(_lines(contract, kind, asked.drill)) + "\n")
    return 0


def _lines(contract: Contract, kind: str, drill: Drill | None) -> Iterator[str]:
    from pgconform.catalogue_of_checks import load
    from pgconform.needs import READER, needs

    runs: list[Check] = []
    left: dict[str, list[Check]] = {}
    for check in load().values():
        left.setdefault(_why_not(check, contract, kind, drill), []).append(check)
    runs = left.pop("", [])
    yield f"{contract.name} on {kind}: {len(runs)} of {len(load())} checks would run\n"
    for check in runs:
        count = len(check.subjects(contract)) if check.by_contract else 0
        on = f"{count} declared" if check.by_contract else "catalogue"
        accepted = contract.skips.get(check.id, "")
        may = f"; may find nothing: {accepted}" if accepted else ""
        yield f"  {check.id:30} {on:>13}  {', '.join(check.when)}{may}"
    for why, checks in left.items():
        yield f"\nnot run, {why}:\n  " + "\n  ".join(f"{check.id:30} {check.looked_for}" for check in checks)
    yield "\nneeds:"
    for need, number in Counter(need for check in runs for need in needs(check)).most_common():
        yield f"  {number:4} checks: {need}"
    if kind == "live":
        yield f"  {READER}"


def _why_not(check: Check, contract: Contract, kind: str, drill: Drill | None) -> str:
    """Why the check would not run; '' where it would."""
    if check.by_contract and not check.subjects(contract):
        return "since the contract declares nothing of the kind"
    if check.drill and kind == "live" and "copies" not in check.asks:
        return "since they write, and a live target is never written: try a copy on --target=embedded or container"
    if "copies" in check.asks and kind == "live" and not drill:
        return "unless asked for by --drill=restore, which reads a live target as a whole and writes elsewhere"
    if "copies" in check.asks and drill and not drill.runs(check.id):
        return "since --drill names a part: of the drills on copies, the restore drill alone runs"
    return ""
