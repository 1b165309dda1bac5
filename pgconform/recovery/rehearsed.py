"""A tenant's rows taken out, lost, and brought back, on copies of the database; and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Figure, Finding, NotVerified
from pgconform.recovery import tenants
from pgconform.recovery.copies import Copies, Copy, Restored
from pgconform.recovery.needed import needed
from pgconform.recovery.restored import figures, reading
from pgconform.recovery.tenants import Part, Sums, Tenant
from pgconform.statements import Rows

RETURNED = "-- see what changes rows while they are loaded (triggers, rules), and bring back exactly what was there"
OTHERS = "-- no row of one tenant may hang on another's: see the foreign keys that refer to it, and their ON DELETE"


_SAYS = {
    "forgotten": ("name {} or its rows, and no export of it holds them", tenants.LOST),
    "foreign": ("that an export of {} takes are another tenant's, too", tenants.FOREIGN),
}


@dataclass(frozen=True)
class Taken:
    """One tenant whose rows are taken out, and what it is called in findings."""

    contract: Contract
    catalog: Catalog
    tenancy: str
    called: str
    tenant: Tenant

    @cached_property
    def parts(self) -> list[Part]:
        return tenants.parts(self.contract, self.catalog, self.tenancy, self.tenant)


def elsewhere(
    copies: Copies, catalog: Catalog, contract: Contract, database: Database, tenancy: str, them: Mapping[str, str]
) -> Iterator[Finding | Figure]:
    """Each tenant's rows, read from the target and loaded into a copy that has no tenant's: what is not there then.

    The copy has other tables' rows only where the tenant's may refer to them. Raises NotVerified.
    """
    tables = {str(part.table) for part in tenants.parts(contract, catalog, tenancy, Tenant(""))}
    if not tables:
        raise NotVerified(f"no table that holds rows of tenancy {tenancy} exists")
    told: set[str] = set()
    with copies.partial(needed(catalog, tables)) as made:
        for called, key in them.items():
            tenants.emptied(made.copy, tables)
            who = Taken(contract, catalog, tenancy, called, Tenant(key))
            for found in (*_lacking(who, database), *_loaded(who, database, made.copy)):
                if isinstance(found, Figure) or found.key not in told:  # of another tenant
                    told |= {found.key} if isinstance(found, Finding) else set()
                    yield found


def _lacking(who: Taken, database: Database) -> Iterator[Finding]:
    """What an export of the tenant lacks, or has besides."""
    masked = replace(who, tenant=replace(who.tenant, masked=True))
    for (detail, rows), (_, shown) in zip(_questions(who), _questions(masked), strict=True):
        if count := int(database.one(rows.count, f"reading {rows.table}")[0]):
            says, remedy = _SAYS[detail]
            observed = f"{count:,} row(s) {says.format(who.called)}"
            yield Finding(rows.table, observed, remedy, detail, rows=shown.shown, count=count)


def _questions(who: Taken) -> Iterator[tuple[str, Rows]]:
    for rows in tenants.forgotten(who.contract, who.catalog, who.tenancy, who.tenant, who.parts):
        yield "forgotten", rows
    for rows in tenants.foreign(who.parts):
        yield "foreign", rows


def _loaded(who: Taken, database: Database, copy: Copy) -> Iterator[Finding | Figure]:
    with closing(copy.connect()) as connection, copy.scratch.folder() as place:
        started = time.monotonic()
        size = tenants.export(database, who.parts, place)
        if failed := tenants.load(connection, who.parts, place):
            yield failed
            return
        seconds = time.monotonic() - started
    yield from figures(Restored(copy, size, seconds), f"{who.called} of {who.tenancy}")
    before = tenants.its(database, who.catalog, who.parts)
    with reading(copy, who.contract) as loaded:
        after = tenants.its(loaded, who.catalog, who.parts, alone=True)
    for table, was, now in tenants.differences(before, after):
        observed = f"of {was:,} exported rows of {who.called}, {now:,} are there after they were loaded elsewhere"
        yield Finding(table, observed if was != now else "exported rows are not the same", RETURNED, "rows")


def in_place(copies: Copies, catalog: Catalog, contract: Contract, tenancy: str) -> Iterator[Finding]:
    """The tenant's rows lost and brought back: what is not as before, and what others lost. Raises NotVerified."""
    with copies.fresh() as copy, copy.scratch.folder() as place:
        wanted, (before, its) = _known(copy, catalog, contract, tenancy)
        with reading(copy, contract) as database:
            tenants.export(database, wanted, place)
        with closing(copy.connect()) as connection:
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
            if failed := tenants.load(connection, wanted, place):
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
    with reading(copy, contract) as database:
        if wanted is None:
            key = next(iter(tenants.extremes(database, contract, catalog, tenancy).values()))
            wanted = tenants.parts(contract, catalog, tenancy, Tenant(key))
        if not wanted:
            raise NotVerified(f"no table that holds rows of tenancy {tenancy} exists")
        return wanted, tenants.sums(database, catalog, wanted)


def _less(one: Sums, other: Sums) -> Sums:
    """The sums of the rows of ``one`` that are not in ``other``."""
    return {name: (count - other[name][0], total - other[name][1]) for name, (count, total) in one.items()}
