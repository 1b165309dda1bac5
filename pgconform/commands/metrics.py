"""pgconform metrics: the only write to a live database, asked for by name."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from pgconform.commands.common import described, folder

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform metrics --contract=contract.toml              shows the rows; nothing is written
  pgconform metrics --contract=contract.toml --write      inserts them

--write is the only way in which pgconform writes to a live database.
exit status: 0, 4 usage or contract error, 75 the database cannot be reached or was lost
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "metrics",
        help="what the last recorded run measured, as rows of the contract's metrics table",
        **described(EPILOG),
    )
    command.add_argument("--contract", required=True, metavar="NAME|FILE", help="a bundled contract or a TOML file")
    command.add_argument("--target", metavar="KIND[:ID]", help="as for run (default: live)")
    command.add_argument(
        "--history", default="", metavar="DIR", help="where runs are recorded (default: reports/history)"
    )
    command.add_argument("--write", action="store_true", help="insert them into that table")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The rows for the metrics table, shown, and inserted where that is asked for."""
    import datetime

    from pgconform.asked import chosen
    from pgconform.metrics import rows, write
    from pgconform.model import Effort, NotVerified
    from pgconform.session import Databases

    databases = Databases(datetime.datetime.now(datetime.UTC), Effort(), folder(known.history))
    try:
        contracts = chosen(known.contract)
        databases.open(known.target or os.environ.get("PGC_TARGET") or "live", contracts)
        for contract in contracts:
            found, lacking = rows(databases.evidence(contract.name))
            for row in found:
                print(f"{row.time:%Y-%m-%d %H:%M:%S}  {row.value:<12g}  {row.metric}")
            for line in lacking:
                print(f"pgconform: {line}", file=sys.stderr)
            if known.write:
                with databases.writing(contract.name) as database:
                    print(write(database, contract, found))
    except NotVerified as error:
        raise ValueError(str(error)) from None
    finally:
        databases.close()
    return 0
