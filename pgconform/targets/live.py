"""A database that somebody else runs: read only, through libpq's own way to connect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pgconform.contract import Contract
from pgconform.targets import TargetError
from pgconform.targets.server import ServerError, swept


@contextmanager
def databases(identifier: str, contracts: Sequence[Contract], prepare: str) -> Iterator[dict[str, str]]:
    """The one database of the one contract: ``identifier`` is a connection string, or '' for libpq's environment.

    Raises TargetError unless there is exactly one contract, and nothing is to be prepared.
    """
    if prepare:
        raise TargetError("--prepare fills an empty database; a live one is never written: use --target=embedded")
    if len(contracts) != 1:
        names = ", ".join(contract.name for contract in contracts)
        raise TargetError(
            f"target live is one database: name its contract with --contract= (one of {names}, or a file)"
        )
    with suppress(ServerError, OSError), swept():  # a run that was killed in a drill may have left a dump, with rows
        pass
    yield {contracts[0].name: identifier or os.environ.get("PGC_DSN", "")}
