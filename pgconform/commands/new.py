"""pgconform new: the files of a new check, which then lack nothing but what it checks."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
example, in a checkout:
  pgconform new comments-written --suite=schema
  make docs lint
  python -m pytest tests/test_proofs.py -k comments-written    fails until the check and its fault are written
"""
CHECK = '''"""{title}: say here what belongs together in this file."""

from collections.abc import Iterator

from pgconform.catalog import Table
from pgconform.checks import check
from pgconform.model import Finding
from pgconform.subjects import application_tables


@check("{id}", guide=["{row}"], when=["weekly"], of=application_tables)
def test_{name}(table: Table) -> Iterator[Finding]:
    """Say here in one line what has to hold.

    Say here why it matters: what goes wrong where it does not hold.
    """
    if table.name == "{name}_fault":
        yield Finding(str(table), "say here what was observed", f"-- the SQL that puts {{table}} right;")
'''
FAULT = """-- contract: {contract}
-- about: say here what is wrong
-- finds: {id}: public.the_object
select 'break it here';
"""
DECOY = """-- contract: {contract}
-- about: say here why the nearest legal thing is legal
select 'do the legal thing here';
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("new", help="the files of a new check, in a checkout", **described(EPILOG))
    command.add_argument("check", metavar="CHECK", help="its id: small letters, digits and hyphens")
    command.add_argument("--suite", required=True, metavar="NAME", help="the suite that it belongs to")
    command.add_argument("--row", default="", metavar="ROW", help="the guide's row that it answers, such as vs-13")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Writes check, fault and decoy; never over a file."""
    from pgconform.catalogue_of_checks import load
    from pgconform.contract_file import bundled
    from pgconform.guides import guides

    suites = sorted(path.parent.name for path in Path("suites").glob("*/__init__.py"))
    rows = [row.id for listed in guides().values() for row in listed]
    if not suites:
        raise ValueError("no folder suites here; pgconform new works in a checkout of pgconform")
    if known.suite not in suites:
        raise ValueError(f"no suite {known.suite!r}; use one of {', '.join(suites)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", known.check):
        raise ValueError(f"{known.check!r} is no id; use small letters, digits and hyphens")
    if known.check in load():
        raise ValueError(f"check {known.check} exists already; 'pgconform explain {known.check}' tells of it")
    if known.row and known.row not in rows:
        raise ValueError(f"no row {known.row!r}; they are {rows[0]} to {rows[-1]}, listed in docs/coverage.md")
    name, row = known.check.replace("-", "_"), known.row or rows[0]
    contract = next(iter(bundled()))
    faults = Path("fixtures") / "faults" / known.check
    wanted = {
        Path("suites") / known.suite / f"test_{name}.py": CHECK.format(
            id=known.check, name=name, row=row, title=known.check.replace("-", " ").capitalize()
        ),
        faults / "fault.sql": FAULT.format(id=known.check, contract=contract),
        faults / "decoy-legal.sql": DECOY.format(contract=contract),
    }
    if there := [str(path) for path in wanted if path.exists()]:
        raise ValueError(f"{there[0]} exists already; choose another id")
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    print(f"next: write them, then make docs lint, and: python -m pytest tests/test_proofs.py -k {known.check}")
    return 0
