"""What checks of a running database look at: what the contract promises of it.

The first line of each docstring is what a report says was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.catalog import Catalog, Sequence, Table
from pgconform.contract import Contract
from pgconform.contract_operations import Backups, Operations, Trends
from pgconform.names import literal, quote
from pgconform.subjects import Declared, application_tables, declared


def trends(contract: Contract) -> Iterator[Trends]:
    """What is promised of changes from run to run."""
    if contract.trends:
        yield contract.trends


def watched_tables(contract: Contract) -> Iterator[Declared[Trends]]:
    """Tables whose growth by tenant is watched."""
    if item := contract.trends:
        yield from (declared(name, [contract.column_of(name)], item) for name in item.tables)


def operations(contract: Contract) -> Iterator[Operations]:
    """Limits of the running server."""
    if contract.operations:
        yield contract.operations


@dataclass(frozen=True, slots=True)
class Size:
    """How large something may be: 'database', a schema or a table; in bytes."""

    name: str
    most: float

    def __str__(self) -> str:
        return self.name


def sizes(contract: Contract) -> Iterator[Size]:
    """Declared sizes."""
    for name, most in (contract.operations.sizes if contract.operations else {}).items():
        yield Size(name, most * 1e9)


def whole(contract: Contract) -> Iterator[str]:
    """The database as a whole."""
    yield contract.name


def tenant_schemas(contract: Contract) -> Iterator[str]:
    """Schemas of tenants' tables."""
    yield from contract.schemas.tenant


def tenancies(contract: Contract) -> Iterator[str]:
    """Ways in which rows belong to tenants."""
    yield from contract.tenancies


SOURCES = ("archiver", "manifest", "dumps", "listing")


@dataclass(frozen=True)
class Source:
    """One kind of evidence of backups that the contract names."""

    kind: str
    item: Backups

    def __str__(self) -> str:
        return self.kind


def backup_sources(contract: Contract) -> Iterator[Source]:
    """Places where backups are found."""
    if item := contract.backups:
        yield from (Source(kind, item) for kind in SOURCES if getattr(item, kind))


def dated_sources(contract: Contract) -> Iterator[Source]:
    """Places where several backups are kept."""
    return (source for source in backup_sources(contract) if source.kind != "archiver")


def numbered_keys(catalog: Catalog, contract: Contract) -> Iterator[tuple[Table, str, Sequence]]:
    """Columns that are keys by themselves and get their values from a sequence."""
    owning = {s.owned_by: s for s in catalog.sequences if s.owned_by}
    giving = {f"nextval({literal(str(s))}::regclass)": s for s in catalog.sequences}
    for table in application_tables(catalog, contract):
        if table.kind not in ("table", "partitioned"):
            continue
        keys = {i.columns for i in table.indexes if i.unique and i.valid and not i.predicate}
        for column in table.columns:
            given = owning.get(f"{table}.{quote(column.name)}") if column.identity else giving.get(column.default or "")
            if given and (column.name,) in keys:
                yield table, column.name, given
