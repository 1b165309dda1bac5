"""pgconform init: a first contract, drafted from a live database."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described, given, opened, show, writing

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform init --dsn=postgresql://reader@db.example.org/app --out=contract.toml
  PGSERVICE=app pgconform init > contract.toml

Reads one snapshot in a read-only transaction and writes nothing there. Each guess has its reason beside it, second
guesses are commented out. exit status: 0, 4 usage error or refused login, 75 the database cannot be reached or was lost
"""


def add(commands: Commands) -> None:
    command = commands.add_parser("init", help="draft a contract from a live database", **described(EPILOG))
    where = command.add_mutually_exclusive_group()
    where.add_argument("--dsn", metavar="URI", help="the database (default: PGC_DSN, or libpq's environment)")
    where.add_argument("--target", metavar="live[:URI]", help="the same, as run takes it")
    command.add_argument("--out", metavar="FILE", help="where the contract goes; never over a file (default: stdout)")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """A draft of the database's contract, printed or written to a new file."""
    from pgconform.contract import Contract
    from pgconform.drafting.draft import draft
    from pgconform.model import Effort, Mistake, NotVerified
    from pgconform.targets import split

    source = _source(known)
    known.target = f"live:{known.dsn}" if known.dsn else given(known, "target", "live")
    if split(known.target)[0] != "live":
        raise Mistake("init drafts from a database that is there: use --dsn=URI or --target=live:URI")
    if known.out and Path(known.out).exists():
        raise Mistake(f"{known.out}: exists already; choose another file with --out=")
    try:
        with opened(known, Effort(), [Contract(name="draft")], f"the database that {source} names") as databases:
            text = draft(databases.evidence("draft"))
    except NotVerified as refusal:
        raise Mistake(str(refusal)) from None
    if not known.out:
        show(text.rstrip("\n"))
        return 0
    with writing(known.out):
        Path(known.out).write_text(text, encoding="utf-8")
    print(f"wrote {known.out}; read its guesses, then: pgconform run --contract={known.out} --target=live")
    return 0


def _source(known: argparse.Namespace) -> str:
    """Where the database's address comes from; the address itself may hold a secret."""
    given = "--dsn" if known.dsn else "--target" if known.target else "PGC_TARGET"
    if known.dsn or (known.target or os.environ.get("PGC_TARGET", "")).partition(":")[2]:
        return given
    return "PGC_DSN" if os.environ.get("PGC_DSN") else "libpq's environment (PGHOST, PGSERVICE, ...)"
