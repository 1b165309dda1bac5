"""Rows that name other rows: those exist, under foreign keys and without."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract, Reference
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.probes import rows
from pgconform.subjects import Declared, references


@check("orphans", guide=["muva-29", "vs-15", "vs-4", "vs-5", "vs-2", "vs-3"], when=["gate", "daily", "weekly"],
       each=references)  # fmt: skip
def test_no_row_names_a_row_that_is_gone(
    subject: Declared[Reference], catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding]:
    """Every row that names a row of another table names one that exists.

    Rows inserted with triggers off, or before a constraint was validated, pass every look at the constraints.
    """
    table = catalog.table(subject.table)
    found = [table.column(name) for name in subject.item.columns] if table else []
    nullable = all(column is not None and not column.not_null for column in found)
    yield from rows.judge(database, rows.orphans(subject, nullable, contract.tables[subject.table].flags))
