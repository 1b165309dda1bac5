"""A tenant's rows taken out, lost, and brought back, on copies of the database; and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database, begin
from pgconform.introspect import read_text
from pgconform.model import Finding, NotVerified
from pgconform.recovery import tenants
from pgconform.recovery.copies import Copies, Copy
from pgconform.recovery.tenants import Part, Sums

RETURNED = "-- see what changes rows while they are loaded (triggers, rules), and bring back exactly what was there"
OTHERS = "-- no row of one tenant may hang on another's: see the foreign keys that refer to it, and their ON DELETE"


def elsewhere(copies: Copies, catalog: Catalog, contract: Contract, tenancy: str) -> Iterator[Finding]:
    """The tenant's rows loaded into tables that hold no tenant's: what is not there then. Raises NotVerified."""
    with copies.fresh() as copy, TemporaryDirectory(prefix="pgc-") as name:
        wanted, (_, its) = _known(copy, catalog, contract, tenancy)
        with _reading(copy, contract) as database:
            for table, count in tenants.forgotten(database, catalog, wanted):
                observed = f"{count:,} row(s) refer to one tenant's rows, and no export of the tenant holds them"
                yield Finding(table, observed, tenants.LOST, "forgotten")
        with closing(copy.connect()) as connection:
            tenants.export(connection, wanted, Path(name))
            tenants.emptied(copy, wanted)
            if failed := tenants.load(connection, wanted, Path(name)):
                yield failed
                return
        _, (all_rows, _) = _known(copy, catalog, contract, tenancy, wanted)
        for part in wanted:
            table = str(part.table)
            for _, before, now in tenants.differences({table: its[table]}, {table: all_rows[table]}):
                observed = (
                    f"of {before:,} exported rows of one tenant, {now:,} are there after they were loaded elsewhere"
                )
                yield Finding(table, observed if before != now else "exported rows are not the same", RETURNED, "rows")


def in_place(copies: Copies, catalog: Catalog, contract: Contract, tenancy: str) -> Iterator[Finding]:
    """The tenant's rows lost and brought back: what is not as before, and what others lost. Raises NotVerified."""
    with copies.fresh() as copy, TemporaryDirectory(prefix="pgc-") as name:
        wanted, (before, its) = _known(copy, catalog, contract, tenancy)
        with closing(copy.connect()) as connection:
            tenants.export(connection, wanted, Path(name))
            if failed := tenants.removed(connection, wanted):
                yield failed
                return
            _, (middle, left) = _known(copy, catalog, contract, tenancy, wanted)
            others = set()
            for table, was, now in tenants.differences(_less(before, its), _less(middle, left)):
                others.add(table)
                undeclared = table not in {str(part.table) for part in wanted}
                lost = "that no export of the tenant holds" if undeclared else "of other tenants"
                observed = f"with one tenant's rows, {was - now:,} of {was:,} rows are lost {lost}"
                yield Finding(table, observed, tenants.LOST if undeclared else OTHERS, "others")
            if failed := tenants.load(connection, wanted, Path(name)):
                yield failed
                return
        _, (after, _) = _known(copy, catalog, contract, tenancy, wanted)
        for table, was, now in tenants.differences(before, after):
            if table not in others:
                says = f"{now:,} of {was:,} rows are there" if was != now else "rows are not the same"
                yield Finding(table, f"after one tenant's rows were brought back, {says}", RETURNED, "rows")


def _known(
    copy: Copy, catalog: Catalog, contract: Contract, tenancy: str, wanted: list[Part] | None = None
) -> tuple[list[Part], tuple[Sums, Sums]]:
    """What belongs to the largest tenant, unless that is given; and the sums of all rows, and of its."""
    with _reading(copy, contract) as database:
        if wanted is None:
            tenant = tenants.largest(database, contract, catalog, tenancy)
            wanted = tenants.parts(contract, catalog, tenancy, tenant)
        if not wanted:
            raise NotVerified(f"no table that holds rows of tenancy {tenancy} exists")
        return wanted, tenants.sums(database, catalog, wanted)


@contextmanager
def _reading(copy: Copy, contract: Contract) -> Iterator[Database]:
    with closing(copy.connect()) as connection:
        read_text(connection)
        begin(connection, contract.limits)
        yield Database(connection)


def _less(one: Sums, other: Sums) -> Sums:
    """The sums of the rows of ``one`` that are not in ``other``."""
    return {name: (count - other[name][0], total - other[name][1]) for name, (count, total) in one.items()}
