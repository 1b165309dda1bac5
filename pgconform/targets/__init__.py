"""Where the databases are: ``kind[:id]`` resolved to one connection string for each contract.

A target is a context manager: what it starts, it stops. Its errors are one line each.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pgconform.contract import Contract
from pgconform.model import Mistake

KINDS = ("embedded", "container", "live")


class TargetError(Mistake):
    """The target cannot be used as asked: what, accepted values, next step."""


def split(text: str) -> tuple[str, str]:
    """Kind and id of a target's name. Raises TargetError."""
    kind, _, identifier = text.partition(":")
    if kind not in KINDS:
        raise TargetError(f"unknown target {kind!r}; use one of {', '.join(KINDS)}, as in --target=live:URI")
    return kind, identifier


def referenced(contracts: Sequence[Contract]) -> list[str]:
    """The reference databases that the contracts name, each once. Raises TargetError where one names none."""
    for contract in contracts:
        if not contract.reference:
            raise TargetError(
                f"contract {contract.name} names no reference database; set reference, use --prepare or --target=live"
            )
    return sorted({contract.reference for contract in contracts})


def fill(command: str, contract: Contract, uri: str) -> None:
    """Run the user's shell command, which is to fill the empty database at that address; its output goes to ours.

    It finds the address as PGC_DSN and DATABASE_URL, and the contract's name as PGC_CONTRACT. Raises TargetError where
    it fails.
    """
    import os
    import subprocess
    import sys

    told = {"PGC_DSN": uri, "DATABASE_URL": uri, "PGC_CONTRACT": contract.name}
    # A shell is what the user asked for; what it runs is the user's own.
    done = subprocess.run(command, shell=True, env=os.environ | told, stdout=sys.stderr, check=False)
    if done.returncode:
        raise TargetError(f"--prepare: the command ended with status {done.returncode}; what it printed says why")


@contextmanager
def databases(target: str, contracts: Sequence[Contract], prepare: str = "") -> Iterator[dict[str, str]]:
    """The libpq connection string of each contract's database, by the contract's name.

    These are the reference databases that the contracts name, or, with ``prepare``, empty ones that this shell command
    has filled. Raises TargetError for a target that cannot be used as asked, TargetLost for one that does not answer.
    """
    kind, identifier = split(target)
    module = importlib.import_module(f"{__name__}.{kind}")
    with module.databases(identifier, contracts, prepare) as found:
        yield found
