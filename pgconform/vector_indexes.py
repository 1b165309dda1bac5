"""Which approximate indexes there are on a vector column, and whether a search by the declared metric can use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgconform.vector_kinds import KINDS

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Index, Table
    from pgconform.contract_vectors import Vector

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
    if index.predicate:
        return "it has a predicate, so it does not have all rows"
    from pgconform.expressions import is_cast_of

    key, cast = index.keys[0], vector.index_cast
    through = "binary_quantize" if cast == "bit" else ""
    whole = f"({vector.dimension})" in key and is_cast_of(key, name, through) if cast else index.columns[0] == name
    return "" if whole else f"it indexes {key}"


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
