"""pgconform history: what earlier runs found and measured."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pgconform.commands.common import described, folder

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform history                          the last runs of each database
  pgconform history "size of database"       one figure, run by run

exit status: 0, or 4 where no run is recorded, or none of that name
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("history", help="what earlier runs found and measured", **described(EPILOG))
    command.add_argument(
        "figure", nargs="?", default="", metavar="NAME", help="figures whose names begin so, run by run"
    )
    command.add_argument(
        "--history", default="", metavar="DIR", help="where runs are recorded (default: reports/history)"
    )
    command.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The recorded runs and figures, or one figure's values."""
    from pgconform.model import NotVerified
    from pgconform.reports.history import as_json, as_text

    try:
        print((as_json if known.format == "json" else as_text)(folder(known.history), known.figure))
    except NotVerified as error:
        raise ValueError(str(error)) from None
    return 0
