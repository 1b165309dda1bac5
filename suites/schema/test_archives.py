"""Archives: a place for every column of the live rows."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Retention
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.subjects import Declared, archives


@check("archive-columns", guide=["vs-17"], when=["monthly"], each=archives)
def test_every_archive_has_the_live_columns(subject: Declared[Retention], catalog: Catalog) -> Iterator[Finding]:
    """The archive has every column of the live table, of the same type.

    Otherwise the next archiving run fails, or, where columns are matched by place, swaps values silently.
    """
    live, archive = catalog.table(subject.table), catalog.table(subject.item.archive)
    for column in live.columns if live and archive else ():
        found = archive.column(column.name) if archive else None
        if found is None:
            remedy = f"alter table {archive} add column {quote(column.name)} {column.type};"
            yield Finding(str(archive), f"no column {quote(column.name)}", remedy, detail=quote(column.name))
        elif found.type != column.type:
            change = f"alter column {quote(column.name)} type {column.type}"
            remedy = f"alter table {archive} {change} using {quote(column.name)}::{column.type};"
            observed = f"{quote(column.name)} is {found.type}, live it is {column.type}"
            yield Finding(str(archive), observed, remedy, detail=quote(column.name))
