"""One snapshot of pg_catalog as an immutable Catalog. Reads no user relation, changes nothing, judges nothing.

The caller has opened a REPEATABLE READ, READ ONLY transaction, so that all queries see one moment. An ordinary role
is enough. Nothing is prepared: a pooler may hand each statement to a fresh session.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pgconform.catalog_builder import Row, build
from pgconform.catalog_queries import LOCKED, queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from pgconform.catalog import Catalog

_THRESHOLDS = gc.get_threshold()
# What changes the server's own spelling of expressions and names, and what makes many short queries slow.
_SETTINGS = {
    "search_path": "",  # every name is spelled with its schema
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "jit": "off",
    "work_mem": "64MB",
}


def read_text(connection: Connection[Any]) -> None:
    """Text comes as str from now on, whatever the database's encoding; raises psycopg.Error.

    Out of a SQL_ASCII database psycopg gives bytes: they are read as UTF-8, and what is no UTF-8 is shown as escapes,
    so that such a name can be reported and nothing fails over it.
    """
    from psycopg.adapt import Loader

    class Text(Loader):
        def load(self, data: bytes | bytearray | memoryview) -> str:
            return bytes(data).decode("utf-8", "backslashreplace")

    unknown = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    wanted = "SQL_ASCII" if unknown else "UTF8"
    if connection.info.parameter_status("client_encoding") != wanted:
        connection.execute("select pg_catalog.set_config('client_encoding', %s, false)", [wanted], prepare=False)
    for kind in ("text", "name", "varchar", "bpchar", 0) if unknown else ():
        connection.adapters.register_loader(kind, Text)


def fetch(connection: Connection[Any]) -> dict[str, list[Row]]:
    """The answers to all queries, by kind of object. The transaction's settings stay as they are.

    What another session holds locked longer than lock_timeout is named as ``unseen``. Raises psycopg.Error.
    """
    from psycopg.errors import LockNotAvailable
    from psycopg.rows import tuple_row

    try:
        return _ask(connection, [])
    except LockNotAvailable:
        with connection.cursor(row_factory=tuple_row) as cursor:
            unseen = cursor.execute(LOCKED.encode(), prepare=False).fetchall()
        return _ask(connection, unseen)


def _ask(connection: Connection[Any], unseen: list[Row]) -> dict[str, list[Row]]:
    from psycopg.rows import tuple_row

    asked = queries(connection.info.server_version, [oid for (oid,) in unseen])
    with connection.transaction(force_rollback=True), connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "select " + ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(_SETTINGS)),
            [text for pair in _SETTINGS.items() for text in pair],
            prepare=False,
        )
        answers = {kind: cursor.execute(text.encode(), prepare=False).fetchall() for kind, text in asked.items()}
    return answers | {"unseen": unseen}


def snapshot(connection: Connection[Any]) -> Catalog:
    """What the caller's transaction sees of the database's structure.

    Raises psycopg.Error.
    """
    read_text(connection)
    with _uncollected():
        return build(fetch(connection))


def keep() -> None:
    """Has the cyclic collector leave alone what is there now, and look seldom: catalogues stay, and what checks make of
    10,000 tables is in no cycle. Walking all that again and again doubled the time of the checks."""
    gc.freeze()
    gc.set_threshold(10 * _THRESHOLDS[0], *_THRESHOLDS[1:])


def release() -> None:
    """Undoes ``keep``."""
    gc.unfreeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic collector: it would walk hundreds of thousands of tuples again and again, for nothing. What
    was made counts as old at once, so that it is not walked right after that."""
    enabled, kept = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if not kept:
            gc.unfreeze()
        if enabled:
            gc.enable()
