"""Which tables' rows the rows of some tables refer to, by the catalogue's foreign keys. Pure."""

from __future__ import annotations

from collections.abc import Collection

from pgconform.catalog import Catalog


def needed(catalog: Catalog, tables: Collection[str]) -> set[str]:
    """The other tables whose rows must be there for those of ``tables``, and all that these refer to in turn, perhaps
    some of ``tables``. With a partitioned table come its partitions, which have its rows."""
    found: set[str] = set()
    more = _referred(catalog, tables) - set(tables)
    while more:
        found |= more
        more = _referred(catalog, more) - found
    return found


def _referred(catalog: Catalog, tables: Collection[str]) -> set[str]:
    known = [table for name in tables if (table := catalog.table(name))]
    partitions = {str(table) for table in catalog.tables if table.parent in tables}
    return partitions | {key.references for table in known for key in table.foreign_keys()}
