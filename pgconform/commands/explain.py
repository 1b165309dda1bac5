"""pgconform explain: what a check demands, and why."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.commands.common import check_of, described

if TYPE_CHECKING:
    from pgconform.checks import Check
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform explain all
  pgconform explain policy-always-true

exit status: 0, or 4 where there is no such check
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "explain", help="what a check demands, why, what breaks it, and how to except from it", **described(EPILOG)
    )
    command.add_argument("check", metavar="CHECK", help="the check's id; 'all' lists them")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The check's obligation and reason, its guide rows, a fault that breaks it, and what excepts from it."""
    from pgconform.catalogue_of_checks import load

    if known.check == "all":
        print("\n".join(f"{check.id:28} {check.title}" for check in load().values()))
        return 0
    print("\n".join(_lines(check_of(known.check))))
    return 0


def _lines(check: Check) -> Iterator[str]:
    from pgconform.guides import guides
    from pgconform.needs import needs, suite_of
    from pgconform.shown import fault, shortened

    yield f"{check.id}: {check.title}.\n"
    yield from textwrap.wrap(check.why, 100)
    yield f"\nlooks at: {check.looked_for}\nsuite:    {suite_of(check)}{' (a drill: it writes)' if check.drill else ''}"
    yield f"when:     {', '.join(check.when)}\nseverity: {check.severity}\nneeds:    {'; '.join(needs(check))}"
    rows = {row.id: row for listed in guides().values() for row in listed}
    yield "\nguide:"
    for row in (rows[id] for id in check.guide):
        yield f"  {row.id}, {row.section}: {row.obligation}"
    shown = fault(check.id)
    if shown:
        yield f"\nA fault that it finds ({shown.name}): {shown.about}\n"
        yield textwrap.indent(shown.sql, "  ")
        yield "\nIt is found as\n"
        yield f"  {shown.finds[0]}{': ' * bool(shown.observed)}{shown.observed}"
        if shown.remedy:
            yield "\nwith the remedy\n"
            yield textwrap.indent(shortened(shown.remedy), "  ")
        elif shown.mend:
            yield f"\nmended by: {shown.mend}"
        else:
            yield "\nwith a remedy that follows from what is there."
    yield from _exceptions(check, shown.finds[0] if shown and shown.finds else "public.orders")


def _exceptions(check: Check, key: str) -> Iterator[str]:
    """The lines of a contract that except from the check."""
    import datetime

    from pgconform.drafting.page import value

    yield "\nWhere it is right that there is nothing to examine, the contract says so:\n"
    yield f'  [skips]\n  {check.id} = "why there is nothing to examine"'
    name, _, detail = key.partition(": ")
    until = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)
    yield "\nA known finding can be waived until a day:\n"
    yield f"  [[waivers]]\n  check = {value(check.id)}\n  object = {value(name)}"
    if detail:
        yield f"  detail = {value(detail)}"
    yield f'  reason = "why it may stay for now"\n  owner = "who mends it"\n  until = {until}'
