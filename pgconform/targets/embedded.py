"""The bundled reference databases on a server of our own, started for the run and stopped after it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from pgconform import __version__
from pgconform.contract import Contract
from pgconform.targets import TargetError, fill, referenced
from pgconform.targets.server import Server, ServerError, find_binaries, prepared, running

DEFAULT_VERSION = "16"


@contextmanager
def databases(identifier: str, contracts: Sequence[Contract], prepare: str) -> Iterator[dict[str, str]]:
    """Each contract's database, its reference or what ``prepare`` makes; ``identifier`` is the server's major version,
    16 where it is ''.

    Raises TargetError for a contract without reference database, or a version that is not here.
    """
    import psycopg
    from psycopg import sql

    try:
        if prepare:
            with running(identifier or DEFAULT_VERSION) as empty:
                for contract in contracts:
                    with psycopg.connect(empty.dsn(), autocommit=True) as connection:
                        connection.execute(sql.SQL("create database {}").format(sql.Identifier(contract.name)))
                    fill(prepare, contract, empty.uri(contract.name))
                yield {contract.name: empty.dsn(contract.name) for contract in contracts}
        else:
            with server(referenced(contracts), identifier) as filled:
                yield {contract.name: filled.dsn(contract.reference) for contract in contracts}
    except ServerError as error:
        raise TargetError(str(error)) from None
    except psycopg.Error as error:
        why = " ".join((error.diag.message_primary or type(error).__name__).split())
        version = identifier or DEFAULT_VERSION
        raise TargetError(f"the reference databases cannot be built on PostgreSQL {version}: {why}") from None


@contextmanager
def server(references: Sequence[str], version: str = "") -> Iterator[Server]:
    """A running server with these reference databases, copied from a prepared data directory. Raises ServerError."""
    from pgconform.fixtures.databases import create

    binaries = find_binaries(version or DEFAULT_VERSION)
    names = sorted(set(references))
    template = prepared(_key(names, binaries), binaries, lambda empty: create(empty.dsn(), names))
    with running(version or DEFAULT_VERSION, template=template) as started:
        yield started


def _key(names: Sequence[str], binaries: Path) -> str:
    """Changes with what is built, by which server, and by the day: the rows' times are relative to it."""
    digest = hashlib.sha256(f"{__version__} {binaries} {datetime.datetime.now(datetime.UTC).date()}".encode())
    root = Path(str(files("pgconform.fixtures"))) / "databases"
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".sql", ".py")):
        digest.update(path.read_bytes())
    return f"{'-'.join(names)}-{digest.hexdigest()[:16]}"
