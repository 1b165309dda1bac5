"""pgconform report: the reports of a run that is over, written again from its findings.json."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform report reports/out --report=sarif                      adds it; report.html stays as it is
  pgconform report nightly/out --since=yesterday/out --out=morning  report.html, beside another run

No database is asked. exit status: 0, or 4 where there is no such run
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("report", help="write a run's reports again, in other formats", **described(EPILOG))
    command.add_argument(
        "run", nargs="?", default="reports/out", metavar="RUN", help="a run's findings.json, or its directory"
    )
    command.add_argument(
        "--report",
        default="html",
        metavar="LIST",
        help="html (default), junit, sarif, github, gitlab, markdown, prometheus",
    )
    command.add_argument("--since", metavar="RUN", help="an earlier run, to say what changed since")
    command.add_argument("--out", metavar="DIR", help="where they go (default: the run's directory)")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Writes the reports that are named, and no other. Raises Mistake."""
    from pgconform.asked import REPORTS, reports_of
    from pgconform.changes import as_past
    from pgconform.model import Mistake
    from pgconform.reports import beside, write
    from pgconform.reports.findings import read

    place = Path(known.run)
    run = read(place)
    if known.since:
        run.past = as_past(read(Path(known.since)))
    troubles = len(run.troubles)
    out = Path(known.out) if known.out else place if place.is_dir() else place.parent
    run.beside = beside.read(place if place.is_dir() else place.parent)
    names = reports_of(known.report, (*REPORTS, "html", "junit"))
    write(run, out, names)
    if run.troubles[troubles:]:
        raise Mistake(run.troubles[troubles])
    print(f"wrote {', '.join(names)} to {out}")
    return 0
