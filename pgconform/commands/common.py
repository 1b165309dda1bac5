"""What several commands share: their options, the databases they open, exit statuses."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgconform.checks import Check
    from pgconform.contract import Contract
    from pgconform.model import Effort
    from pgconform.session import Databases

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

INTERRUPTED, USAGE, LOST = 2, 4, 75


def described(epilog: str) -> Any:
    """How a parser is told to end its help with a text whose lines stay as they are."""
    return {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}


def check_of(id: str) -> Check:
    """The check of that id. Raises ValueError with the nearest one."""
    import difflib

    from pgconform.catalogue_of_checks import load

    checks = load()
    if id not in checks:
        near = difflib.get_close_matches(id, checks, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"no check {id!r}{hint} 'pgconform explain all' lists them")
    return checks[id]


def target_of(command: argparse.ArgumentParser) -> None:
    """What is looked at, and where."""
    command.add_argument("--contract", metavar="NAME|FILE", help="a bundled contract or a TOML file (default: all)")
    command.add_argument(
        "--target", metavar="KIND[:ID]", help="embedded[:16|18] (default), container[:IMAGE] or live[:URI]"
    )
    command.add_argument(
        "--prepare", metavar="COMMAND", help="shell command that fills an empty embedded database, at PGC_DSN"
    )


def asked_of(command: argparse.ArgumentParser) -> None:
    """What both run and access are asked for."""
    target_of(command)
    command.add_argument("--effort", metavar="LEVEL", help="how hard to attack: quick, default or nightly")
    command.add_argument("--seed", metavar="N", help="what the attacks are drawn from (default: 1)")


def given(known: argparse.Namespace, name: str, default: str = "") -> str:
    return str(getattr(known, name) or os.environ.get(f"PGC_{name.upper()}") or default)


def show(text: str) -> None:
    """A name may hold what the terminal cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)


@contextmanager
def opened(
    known: argparse.Namespace, effort: Effort, contracts: Sequence[Contract] | None = None, called: str = ""
) -> Iterator[Databases]:
    """The target's databases, by the contracts that were asked for unless given, for the time of the block; what goes
    wrong on the way is one line, which calls the database as given, else by its contract."""
    import datetime

    import psycopg

    from pgconform.asked import chosen
    from pgconform.model import TargetLost
    from pgconform.progress import shown
    from pgconform.session import Databases

    prepare = given(known, "prepare") if hasattr(known, "prepare") else ""  # a draft is of what is there
    databases = Databases(datetime.datetime.now(datetime.UTC), effort, prepare=prepare)
    databases.called = called
    try:
        target, contracts = given(known, "target", "embedded"), contracts or chosen(given(known, "contract"))
        with shown(f"opening {target.partition(':')[0]}"):
            databases.open(target, contracts)
        yield databases
    except psycopg.Error as error:  # libpq's own message may hold host, user and password
        raise TargetLost(f"the database could not be pictured ({error.sqlstate or type(error).__name__})") from None
    finally:
        databases.close()


@contextmanager
def writing(place: str | Path, option: str = "--out") -> Iterator[None]:
    """What is written in the block goes to the place that the option names. Raises Mistake where it cannot be."""
    from pgconform.model import Mistake, unwritable

    try:
        yield
    except OSError as error:
        raise Mistake(unwritable(place, error, option)) from None


def folder(given: str) -> Path:
    return Path(given or os.environ.get("PGC_HISTORY") or "reports/history")


def reference_of(contract: str) -> str:
    """The reference database that a contract names. Raises ValueError."""
    from pgconform.contract_file import load, resolve

    found = load(resolve(contract))
    if not found.reference:
        raise ValueError(f"contract {found.name} names no reference database; set reference in it")
    return found.reference
