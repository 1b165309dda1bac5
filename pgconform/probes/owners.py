"""Keys that are a row's name only beside its tenant: where each tenant numbers its own rows."""

from __future__ import annotations

from pgconform.catalog import Catalog
from pgconform.contract import Contract

Owners = tuple[str, str]  # the tenant's column of a relation, and that of another one


def owners(contract: Contract, catalog: Catalog, table: str, key: str, other: str) -> Owners | None:
    """The columns that the two relations have to be compared by as well; None where the key says it alone.

    That is so where a unique index of the first one has the key beside the tenant, and none has the key alone.
    """
    mine, its = (_tenant(contract, name) for name in (table, other))
    stored = catalog.table(table)
    unique = [i.columns for i in stored.indexes if i.unique and not i.predicate] if stored else []
    together = any({mine, key} <= set(columns) for columns in unique) and (key,) not in unique
    return (mine, its) if mine and its and mine != key and together else None


def _tenant(contract: Contract, table: str) -> str:
    promise = contract.tables.get(table)
    return contract.column_of(table) if promise and promise.holds == "tenant" else ""
