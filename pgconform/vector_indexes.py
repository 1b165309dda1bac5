"""Which approximate indexes there are on a vector column, and whether a search by the declared metric can use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgconform.remedies import suited_lists
from pgconform.vector_kinds import KINDS

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Index, Table
    from pgconform.contract_vectors import Vector, VectorIndex

METHODS = ("hnsw", "ivfflat")


def unusable(index: Index, name: str, vector: Vector) -> str:
    """Why a search by the declared metric cannot use the index; '' where it can."""
    assert vector.index
    assert vector.indexed_as, "what no index takes is no contract"
    operators = KINDS[vector.indexed_as].operator_class
    if index.method not in vector.index.methods:
        return f"its method is {index.method}"
    if not (index.valid and index.ready):
        return "it is not valid"
    if len(index.keys) != 1 or index.operator_classes[0].rpartition(".")[2] != operators:
        return f"its operator class is {index.operator_classes[0]}, not {operators}"
    if not index.has_all(name):  # vectors that are null are in no such index anyway
        return "it has a predicate, so it does not have all rows"
    from pgconform.expressions import is_cast_of

    key, cast = index.keys[0], vector.index_cast
    through = "binary_quantize" if cast == "bit" else ""
    whole = f"({vector.dimension})" in key and is_cast_of(key, name, through) if cast else index.columns[0] == name
    return "" if whole else f"it indexes {key}"


def odd_options(index: Index, table: Table, promise: VectorIndex) -> Iterator[tuple[str, str]]:
    """Options of an index that are out of range: what was observed, and the setting that is in range."""
    if index.method == "ivfflat" and table.rows > 0:
        lists = int(index.options.get("lists", 100))  # pgvector's default, as are the two below
        low, high = promise.rows_per_list
        if not low <= table.rows / lists <= high:
            observed = f"lists = {lists} for about {table.rows:.0f} rows: not {low:g} to {high:g} rows a list"
            yield observed, f"lists = {suited_lists(table.rows)}"
    for option, default, (low, high) in (("m", 16, promise.m), ("ef_construction", 64, promise.ef_construction)):
        value = int(index.options.get(option, default))
        if index.method == "hnsw" and not low <= value <= high:
            yield f"{option} = {value}, not {low} to {high}", f"{option} = {max(low, min(high, default))}"


def candidates(table: Table, name: str) -> list[Index]:
    """The approximate indexes of a table that read the column."""
    return [i for i in table.indexes if i.method in METHODS and reads(i, name)]


def of_relation(catalog: Catalog, table: str, name: str) -> list[Index]:
    """As ``candidates``, with those of the partitions."""
    return [i for t in catalog.tables if table in (str(t), t.parent) for i in candidates(t, name)]


def reads(index: Index, name: str) -> bool:
    """True when the index has the column as a key, or inside an expression."""
    from pgconform.expressions import shape

    return any(
        column == name or (not column and name in shape(key).columns)
        for column, key in zip(index.columns, index.keys, strict=True)
    )
