"""Proves faults that no transaction can hold: each in a database of its own, a clone of the reference."""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from pgconform.introspect import read_text, snapshot
from pgconform.model import Result
from pgconform.recovery.copies import Copies
from pgconform.targets.server import Server
from tests.proving import Fault, contract_of, judge, proven, transaction

FLUSH = "select pg_catalog.pg_stat_force_next_flush()"  # else counts come late, and in any order
_POSTGAST: Any = importlib.import_module("postgast")  # whose generated stub mypy cannot read
PRISTINE = "pristine {}"  # which nobody is connected to, so that it can be cloned


def prepare(server: Server, names: list[str]) -> None:
    """Make the databases that clones come from."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for name in names:
            clone = sql.SQL("create database {} template {}")
            connection.execute(clone.format(sql.Identifier(PRISTINE.format(name)), sql.Identifier(name)))


@contextmanager
def clone(server: Server, name: str) -> Iterator[str]:
    """The connection string of a database like the reference, dropped after the block."""
    place = sql.Identifier("Clone of it")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        template = sql.Identifier(PRISTINE.format(name))
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(place))
        connection.execute(sql.SQL("create database {} template {}").format(place, template))
        try:
            yield server.dsn("Clone of it")
        finally:
            _forget(server.dsn("Clone of it"))
            connection.execute(sql.SQL("drop database {} with (force)").format(place))


def _forget(dsn: str) -> None:
    """Remove what would outlive the database, or keep it from being dropped."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        mine = "select gid from pg_catalog.pg_prepared_xacts where database = current_database()"
        for (gid,) in connection.execute(mine).fetchall():
            connection.execute(sql.SQL("rollback prepared {}").format(gid))
        connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")


def prove_committed(server: Server, fault: Fault) -> None:
    """As ``prove``, where the fault, its remedies and what else it needs are committed.

    Drills on copies run where the fault names their check, or where it stands in their folder.
    """
    contract = contract_of(fault.contract, fault.promise)
    with clone(server, fault.contract) as dsn, ExitStack() as stack:
        connection = stack.enter_context(closing(_connected(dsn)))
        reference = snapshot(connection)
        for paragraph in _paragraphs(fault.sql):
            connection.execute(paragraph.encode())
            connection.execute(FLUSH)
        for text in fault.beside:
            stack.enter_context(_beside(dsn, text))
        time.sleep(fault.wait)

        def judged() -> list[Result]:
            with transaction(connection, contract), closing(Copies(dsn, snapshot(connection))) as copies:
                return judge(connection, contract, reference, fault.finds | {f"{fault.check}: "}, copies=copies)

        def remedied(remedy: str) -> None:
            for statement in filter(str.strip, _POSTGAST.split(remedy)):
                connection.execute(statement.encode())
            connection.execute(FLUSH)

        proven(connection, fault, judged, remedied)


@contextmanager
def _beside(dsn: str, text: str) -> Iterator[None]:
    """Another session that executes the text, and then stays as it is; the block does not wait for it."""
    connection = _connected(dsn)

    def execute() -> None:
        with suppress(psycopg.Error):  # ended by a remedy, or cancelled below
            connection.execute(text.encode())

    thread = threading.Thread(target=execute)
    thread.start()
    try:
        yield
    finally:
        connection.cancel_safe()
        thread.join()
        connection.close()


def _connected(dsn: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    read_text(connection)
    return connection


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text) if re.search(r"^(?!--)\S", paragraph, re.M)]
