"""What a restored database, or a restored schema of it, has lost or has otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.model import Figure, Finding
from pgconform.names import quote
from pgconform.recovery import compare
from pgconform.recovery.copies import Copies, Copy, Restored
from pgconform.recovery.needed import needed
from pgconform.recovery.tools import Unrestorable

CATALOGUE = "-- see what of it pg_dump leaves out, or cannot create anew, and have the backup bring that back by itself"
ROWS = "-- see what changes rows while they are loaded: triggers, rules, defaults, types that print less than they hold"
DATABASE = (
    "select d.datname, pg_catalog.pg_get_userbyid(d.datdba) as owner, pg_catalog.pg_encoding_to_char(d.encoding)"
    " from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database();"
)
NAMED = 3  # objects outside of a schema in each finding; the figures have them all
OUTSIDE = "outside of schema {}, and not in its dump, what hung on it: {}"


def whole(
    subject: str, copies: Copies, catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding | Figure]:
    """The whole database, dumped and restored: a finding for each object, and for each table's rows, that differ.
    Raises NotVerified."""
    before = compare.sequences(database, catalog)
    try:
        found = copies.restored()
    except Unrestorable as error:
        yield Finding(quote(catalog.server.database), str(error), CATALOGUE, rows=DATABASE)
        return
    yield from figures(found, subject)
    yield from compared(found.copy, catalog, contract, database, before)


def schema(
    copies: Copies, catalog: Catalog, contract: Contract, database: Database, name: str
) -> Iterator[Finding | Figure]:
    """One schema, lost from a copy that has all others, and brought back from a dump of it alone. Raises NotVerified.

    The copy has rows of other schemas only where the schema's own rows refer to them. What hangs on the schema from
    outside goes with it, and is in no dump of it: that is told, and is no finding by itself.
    """
    before = compare.sequences(database, catalog, name)
    tables = {str(table) for table in catalog.tables if table.schema == name}
    with copies.partial(needed(catalog, tables)) as made:
        surrounded = _pictured(made.copy, contract)
        try:
            found = copies.again(made.copy, name, tables)
        except Unrestorable as error:
            lost = _lost(surrounded, _pictured(made.copy, contract), name)
            yield Finding(quote(name), f"a dump of the schema cannot be restored: {_told(str(error), lost)}", CATALOGUE)
            return
        lost = _lost(surrounded, _pictured(made.copy, contract), name)
        yield from figures(found, f"schema {quote(name)}")
        yield from (Figure(OUTSIDE.format(quote(name), thing), 1, "objects") for thing in lost)
        yield from compared(made.copy, catalog, contract, database, before, name, lost)


def figures(found: Restored, what: str) -> Iterator[Figure]:
    """How long it took, and how fast it was."""
    yield Figure(f"restore of {what}", round(found.seconds, 2), "seconds")
    yield Figure(f"restore speed of {what}", round(found.size / 1e6 / found.seconds, 2), "MB/s")


def compared(
    copy: Copy, catalog: Catalog, contract: Contract, database: Database, before: Mapping[str, int], schema: str = "",
    lost: Sequence[str] = (),
) -> Iterator[Finding]:  # fmt: skip
    """A finding for each object, and for each table's rows, that differ from the target's. Raises NotVerified.

    Both servers read their rows at the same time. ``before`` are the sequences' last numbers before the dump, which
    holds them as they were in between. Where a ``schema`` is named, only what is in it is compared.
    """
    with reading(copy, contract) as restored, ThreadPoolExecutor(1) as pool:
        there = snapshot(restored.connection)
        theirs = pool.submit(compare.rows, restored, there, schema)
        ours = compare.rows(database, catalog, schema)
        differing = compare.catalogues(catalog, there, schema)
        for difference in differing:
            observed = _told(f"after a restore, it {difference.says}", lost)
            yield Finding(difference.object, observed, CATALOGUE, "catalogue")
        otherwise = {difference.object for difference in differing}
        for difference in compare.differing(ours, theirs.result()):
            if difference.object not in otherwise:
                counted = f"{compare.counted(difference.object, catalog)};"
                yield Finding(difference.object, f"after a restore, it {difference.says}", ROWS, "rows", rows=counted)
        now = compare.sequences(database, catalog, schema)
        for name, last in compare.sequences(restored, there, schema).items():
            if name in now and not min(before[name], now[name]) <= last <= max(before[name], now[name]):
                observed = f"after a restore, its last number is {last:,} where it was {now[name]:,}"
                yield Finding(name, observed, ROWS, "rows")


@contextmanager
def reading(copy: Copy, contract: Contract) -> Iterator[Database]:
    """Questions to a copy, as a run asks its target."""
    with closing(copy.connect()) as connection:
        read_text(connection)
        begin(connection, contract.limits)
        yield Database(connection)


def _pictured(copy: Copy, contract: Contract) -> Catalog:
    with reading(copy, contract) as database:
        return snapshot(database.connection)


def _lost(before: Catalog, after: Catalog, schema: str) -> list[str]:
    """What of the objects outside of the schema is not as it was before the schema was lost and brought back."""
    own = {difference.object for difference in compare.catalogues(before, after, schema)}
    return [f"{d.object} {d.says}" for d in compare.catalogues(before, after) if d.object not in own]


def _told(observed: str, lost: Sequence[str]) -> str:
    """With what the cause may be, where the schema is not to blame alone."""
    more = [f"and {len(lost) - NAMED} more"] if len(lost) > NAMED else []
    return f"{observed}; outside of it, what hung on it: {', '.join([*lost[:NAMED], *more])}" if lost else observed
