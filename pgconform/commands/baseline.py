"""pgconform baseline: the findings of a run become known, so that later runs fail for new ones only."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described, writing

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform run --contract=contract.toml --target=live
  pgconform baseline                                       from reports/out, into baseline.json
  pgconform run --contract=contract.toml --target=live --baseline=baseline.json

A baseline is for the day on which a database is first checked: what is known is counted as waived and shown in every
report, but has no owner and no end. Prefer [[waivers]] in the contract for what is to stay. exit status: 0, or 4
where there is no complete run to take findings from
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "baseline", help="take a run's findings as known: later runs fail for new ones only", **described(EPILOG)
    )
    command.add_argument(
        "run", nargs="?", default="reports/out", metavar="RUN", help="a run's findings.json, or its directory"
    )
    command.add_argument("--out", default="baseline.json", metavar="FILE", help="default: baseline.json")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Writes the file. Raises Mistake for a run that is not complete: its missing findings would come as new ones."""
    from pgconform.baseline import written
    from pgconform.model import Mistake, Verdict
    from pgconform.reports.findings import read

    run = read(Path(known.run))
    if why := run.incomplete():
        raise Mistake(f"{known.run}: not a complete run: {why[0]}; run it again")
    text = written(run.results, f"{run.started:%Y-%m-%d}")
    with writing(known.out):
        Path(known.out).write_text(text, encoding="utf-8")
    kept = text.count('\n    "')  # a key a line
    broken = run.counts()[Verdict.BROKEN]
    more = f"; {broken} check(s) could not be verified, and have no known findings" if broken else ""
    left = f"; {part}" if (part := run.selected()) else ""  # what those cases find will be new
    print(f"wrote {known.out}: {kept} known finding(s){more}{left}")
    return 0
