"""pgconform explain: what a check demands, and why."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgconform.commands.common import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("explain", help="what a check demands, why, and which guide rows it answers")
    command.add_argument("check", metavar="CHECK", help="the check's id; 'all' lists them")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The check's obligation, reason, subjects, guide rows and cadence."""
    import difflib

    from pgconform.catalogue_of_checks import load

    checks = load()
    if known.check == "all":
        print("\n".join(f"{check.id:28} {check.title}" for check in checks.values()))
        return 0
    if known.check not in checks:
        near = difflib.get_close_matches(known.check, checks, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"no check {known.check!r}{hint} 'pgconform explain all' lists them")
    check = checks[known.check]
    print(f"{check.id}: {check.title}.\n\n{check.why}\n")
    print(f"looks at: {check.looked_for}\nguide:    {', '.join(check.guide)}")
    print(f"when:     {', '.join(check.when)}\nseverity: {check.severity}")
    return 0
