"""pgconform fleet: many databases, one report."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described, writing

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform fleet fleet.toml                        two runs at once, here
  pgconform fleet fleet.toml --shard=2/4            the second of four jobs of a CI matrix
  pgconform fleet merge shard-1 shard-2             one report of what all jobs left
  pgconform fleet fleet.toml --scheduler=tcp://10.0.0.5:8786

exit status: that of the targets, the worst first: 1 findings, 4 usage, 3 not verified, 5 nothing examined,
2 interrupted, 75 lost or never answered; 0 where all conform
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("fleet", help="many databases: a run for each, one report", **described(EPILOG))
    command.add_argument("what", nargs="+", metavar="FLEET.toml | merge DIR", help="the fleet's file; or directories")
    command.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at once (default: 2)")
    command.add_argument("--shard", default="", metavar="I/N", help="only part I of N")
    command.add_argument("--scheduler", default="", metavar="ADDRESS", help="of a Dask cluster that does the work")
    command.add_argument("--resume", action="store_true", help="ask only targets that have not answered in DIR")
    command.add_argument("--history", default="", metavar="DIR", help="record each target's runs below it, for changes")
    command.add_argument("--out", default="fleet-reports", metavar="DIR", help="default: fleet-reports")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Runs a fleet, or merges what its parts left; returns the status of all targets that were asked for."""
    from pgconform.fleet import absent, answers, begin, pooled, read, recorded, run, scheduled, sharded, status
    from pgconform.model import Mistake
    from pgconform.reports.fleet import line, write
    from pgconform.targets.signals import terminable

    first, *more = known.what
    out = Path(known.out)
    if first == "merge":
        folders = [Path(name) for name in more or [known.out]]
        found = answers(folders)
        for folder in absent(folders):
            print(f"{folder}: not there; its targets never answered, unless elsewhere")
        with writing(out):
            write(found, out, folders)
    elif more:
        raise Mistake(f"one fleet at a time: {first}; or: pgconform fleet merge DIR ...")
    else:
        if known.jobs < 1:
            raise Mistake(f"--jobs={known.jobs}: wanted 1 or more")
        fleet = [recorded(target, known.history) for target in read(Path(first))]
        mine = sharded(fleet, known.shard)
        hidden = sorted({target.dsn for target in fleet if target.dsn})
        with writing(out):
            waiting = begin(out, fleet, mine, known.resume)
        how = (scheduled, known.scheduler) if known.scheduler else (pooled, min(known.jobs, 4 * (os.cpu_count() or 1)))
        with terminable():
            for answer in run(out, waiting, hidden, *how):
                print(line(answer), flush=True)
        asked = {target.name for target in mine}
        every = answers([out])
        with writing(out):
            write(every, out, [out])
        found = [answer for answer in every if answer.name in asked]
        if not asked:
            print(f"part {known.shard} of {len(fleet)} targets is empty")
            return 0
    good = sum(answer.status == 0 for answer in found)
    print(f"{good} of {len(found)} targets conform; {out}/fleet.html")
    return status(found)
