"""The command line: thin, it fixes options and calls pytest or the engine. Heavy imports wait for their command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pgconform import __version__
from pgconform.commands import ALL, run
from pgconform.commands.common import INTERRUPTED, LOST, USAGE
from pgconform.discreet import discreet, is_address
from pgconform.model import TargetLost

UNREAD = 141  # what a shell says of a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. A mistake of the caller is one line and status 4; that nobody reads on,
    as head does not, is no mistake, and ends it without a word."""
    try:
        try:
            return _called(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be written at the exit
        return UNREAD


def _called(arguments: Sequence[str] | None) -> int:
    own = parser()
    known, rest = own.parse_known_args(arguments)
    command: Callable[[argparse.Namespace, list[str]], int] = known.command
    if rest and command is not run.call:
        own.error(_unknown(rest))
    try:
        return command(known, rest)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, TargetLost) as error:
        print(f"pgconform: {discreet(_said(error))}", file=sys.stderr)
        return LOST if isinstance(error, ConnectionError | TargetLost) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _said(error: Exception) -> str:
    """What went wrong, without the number that the system has for it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _unknown(words: Sequence[str]) -> str:
    """What is said of arguments that the command does not have: no value of theirs, since it may be a secret."""
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    told = f"unknown option {options[0]}" if options else "unknown argument"
    where = "; an address is given by --dsn=URI, or --target=live:URI, whichever the command has"
    return told + (where if any(is_address(word) for word in words) else "")


class _Parser(argparse.ArgumentParser):
    """A mistake has the exit status that a contract's has: 2 is pytest's word for an interruption."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {discreet(message)}; see {self.prog} --help\n")


EPILOG = """\
begin here:
  pgconform init --dsn=URI --out=contract.toml             draft a contract from a database; read and correct it
  pgconform plan --contract=contract.toml --target=live    what a run would do; nothing is sent
  pgconform run --contract=contract.toml --target=live     check the database
  pgconform explain CHECK                                  what a finding's check demands, and why

without a database of your own:
  pgconform run                                            check two reference databases on an embedded server

COMMAND --help tells more. The targets, contracts and checks are explained in docs/.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = _Parser(
        "pgconform", description="Does this database keep the promises that its maintenance guide makes?",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--version", action="version", version=f"pgconform {__version__}")
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    for command in ALL:
        command.add(commands)
    made.set_defaults(whole=made)
    return made
