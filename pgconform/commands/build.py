"""pgconform build: a reference database in an empty database elsewhere."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from pgconform.commands.common import described, reference_of

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform build muva --dsn=postgresql:///staging
  pgconform build muva --rows=20             twenty times as many rows

exit status: 0, 4 usage or contract error, or a database that is not empty, 75 the database cannot be reached
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "build", help="load a reference database into an empty database elsewhere", **described(EPILOG)
    )
    command.add_argument("contract", metavar="CONTRACT", help="a bundled contract's name, or a file")
    command.add_argument("--dsn", default="", metavar="URI", help="the empty database (default: libpq's environment)")
    command.add_argument("--rows", type=float, default=1.0, metavar="SCALE", help="multiplies the number of rows")
    command.add_argument("--seed", type=int, default=1, help="seed of the generator of rows")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The contract's reference database, in an empty database that somebody else runs."""
    import psycopg

    from pgconform.fixtures.databases import build as load
    from pgconform.session import refusal

    reference = reference_of(known.contract)
    try:
        with psycopg.connect(known.dsn or os.environ.get("PGC_DSN", ""), prepare_threshold=None) as connection:
            load(connection, reference, scale=known.rows, seed=known.seed)
    except psycopg.Error as error:
        if error.sqlstate and not error.sqlstate.startswith(("08", "57P")):
            raise ValueError(f"cannot build {reference} ({error.sqlstate}): {error.diag.message_primary}") from None
        raise refusal(error, f"the database to build {reference} in") from None
    print(f"built {reference}")
    return 0
