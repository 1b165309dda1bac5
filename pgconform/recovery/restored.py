"""What a restored database has lost, or has otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.model import Finding
from pgconform.recovery import compare
from pgconform.recovery.copies import Copy

CATALOGUE = "-- see what of it pg_dump leaves out, or cannot create anew, and have the backup bring that back by itself"
ROWS = "-- see what changes rows while they are loaded: triggers, rules, defaults, types that print less than they hold"


def compared(
    copy: Copy, catalog: Catalog, contract: Contract, database: Database, before: Mapping[str, int]
) -> Iterator[Finding]:
    """A finding for each object, and for each table's rows, that differ from the target's. Raises NotVerified.

    Both servers read their rows at the same time. ``before`` are the sequences' last numbers before the dump, which
    holds them as they were in between.
    """
    with closing(copy.connect()) as connection, ThreadPoolExecutor(1) as pool:
        read_text(connection)
        begin(connection, contract.limits)
        there = snapshot(connection)
        restored = Database(connection)
        theirs = pool.submit(compare.rows, restored, there)
        ours = compare.rows(database, catalog)
        lost = {difference.object for difference in compare.catalogues(catalog, there)}
        for difference in compare.catalogues(catalog, there):
            yield Finding(difference.object, f"after a restore, it {difference.says}", CATALOGUE, "catalogue")
        for difference in compare.differing(ours, theirs.result()):
            if difference.object not in lost:
                yield Finding(difference.object, f"after a restore, it {difference.says}", ROWS, "rows")
        now = compare.sequences(database, catalog)
        for name, last in compare.sequences(restored, there).items():
            if name in now and not min(before[name], now[name]) <= last <= max(before[name], now[name]):
                observed = f"after a restore, its last number is {last:,} where it was {now[name]:,}"
                yield Finding(name, observed, ROWS, "rows")
