"""pgconform reader: SQL for the role that a live run connects as."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pgconform.commands.common import described

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform reader | psql -v ON_ERROR_STOP=1 -v password="'...'" "$ADMIN_DSN"
  pgconform reader --clients=web,mobile > reader.sql
"""
CLIENTS = ("anon", "authenticated")


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "reader", help="SQL that makes the role which a live run connects as", **described(EPILOG)
    )
    command.add_argument(
        "--clients", metavar="ROLES", default=",".join(CLIENTS),
        help="roles that your API's clients have, by commas; those that exist are granted"
             " (default: anon,authenticated)",
    )  # fmt: skip
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The SQL, with the roles that clients have. Raises Mistake where none is named."""
    from importlib.resources import files

    from pgconform.model import Mistake
    from pgconform.names import literal

    clients = [name.strip() for name in known.clients.split(",")]
    if not all(clients):
        raise Mistake(f"--clients={known.clients}: names of roles wanted, by commas, such as {','.join(CLIENTS)}")
    text = (files("pgconform") / "reader.sql").read_text(encoding="utf-8")
    theirs, ours = (", ".join(map(literal, names)) for names in (clients, CLIENTS))
    print(text.replace(f"({ours})", f"({theirs})"), end="")
    return 0
