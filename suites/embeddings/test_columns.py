"""Vector columns and their indexes, as the catalogue has them."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Column, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.contract_vectors import Vector
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.remedies import create_vector_index, vector_type
from pgconform.subjects import Declared, stored_vectors, vectors
from pgconform.vector_indexes import candidates, odd_options, reads, unusable


def _retype(table: Table, name: str, wanted: str) -> tuple[str, str]:
    """The remedy that gives a column the wanted type, and the SELECT of what it would lose."""
    drop = [f"drop index {i};\n" for i in table.indexes if reads(i, name)]
    change = f"alter table {table} alter column {quote(name)} type {wanted} using null;"
    return "".join(drop) + change, f"select * from {table} where {quote(name)} is not null;"


@check("vector-dimension", guide=["muva-4"], when=["gate"], each=vectors)
def test_every_embedding_column_has_its_dimension(subject: Declared[Vector], catalog: Catalog) -> Iterator[Finding]:
    """Every declared embedding column is of the declared vector type and dimension.

    A bare vector column takes vectors of any length: the first wrong one makes searches fail.
    """
    table, name = catalog.table(subject.table), subject.needs[0][1][0]
    column = table.column(name) if table else None
    if table is None or column is None:
        return
    kind = catalog.comparable(column)
    if kind == subject.item.type and column.modifier == subject.item.dimension:
        return
    wanted = vector_type(catalog, subject.item)
    remedy, rows = f"alter table {table} alter column {quote(name)} type {wanted};", ""
    if not kind or column.modifier != -1:
        remedy, rows = _retype(table, name, wanted)
    yield Finding(str(table), f"{quote(name)} is {column.type}, not {wanted}", remedy, quote(name), bool(rows), rows)


def vector_columns(catalog: Catalog, contract: Contract) -> Iterator[tuple[Table, Column]]:
    """Columns of pgvector's types that the contract does not declare."""
    for table in catalog.tables if catalog.vector_types else ():
        declared = contract.tables[str(table)].vectors if str(table) in contract.tables else {}
        if table.stores_rows and not table.parent and not table.extension:
            for column in table.columns:
                if column.base_oid in catalog.vector_types and column.name not in declared:
                    yield table, column


@check("vector-columns-dimensioned", guide=["muva-11"], when=["gate"], of=vector_columns)
def test_every_other_vector_column_has_a_declared_dimension(
    subject: tuple[Table, Column], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every vector column that the contract does not name has a dimension, and one that the contract knows.

    Vectors of two models in one database cannot be compared; a search over them fails, or finds nonsense.
    """
    table, column = subject
    declared = [v for t in contract.tables.values() for v in t.vectors.values() if v.type != "bit"]
    known = {v.dimension for v in declared}
    if column.modifier not in known and known:
        remedy, rows = _retype(table, column.name, vector_type(catalog, declared[0]))
        observed = f"{quote(column.name)} is {column.type}; declared dimensions: {', '.join(map(str, sorted(known)))}"
        yield Finding(str(table), observed, remedy, quote(column.name), True, rows)


@check("vector-index", guide=["muva-12", "muva-37"], when=["gate", "quarterly"], each=stored_vectors)
def test_every_embedding_column_has_a_usable_index(subject: Declared[Vector], catalog: Catalog) -> Iterator[Finding]:
    """Every declared embedding column has a valid approximate index of all rows that its searches can use.

    pgvector indexes up to 2000 dimensions of vector and 4000 of halfvec: an index on another expression, or by
    another operator class, is never used, and every search reads the whole table.
    """
    table, name = catalog.table(subject.table), subject.needs[0][1][0]
    if table is None or subject.item.index is None:
        return
    faults = {str(i): unusable(i, name, subject.item) for i in candidates(table, name)}
    if "" not in faults.values():
        observed = "; ".join(f"{i}: {why}" for i, why in faults.items()) or f"no approximate index on {quote(name)}"
        drops = "".join(f"drop index {i};\n" for i in faults)
        remedy = drops + create_vector_index(catalog, table, name, subject.item)
        yield Finding(str(table), observed, remedy, detail=quote(name))


@check("vector-index-options", guide=["muva-12"], when=["gate"], each=stored_vectors)
def test_every_vector_index_suits_its_rows(subject: Declared[Vector], catalog: Catalog) -> Iterator[Finding]:
    """Lists, m and ef_construction of the vector indexes are in range for the number of rows.

    More lists than the rows can fill, or too few, cost recall or speed; both look like a slow database.
    """
    table, promise = catalog.table(subject.table), subject.item.index
    if table is None or promise is None:
        return
    for index in candidates(table, subject.needs[0][1][0]):
        for observed, setting in odd_options(index, table, promise):
            remedy = f"alter index {index} set ({setting});\nreindex index {index};"
            yield Finding(str(index), observed, remedy, setting.partition(" ")[0])
