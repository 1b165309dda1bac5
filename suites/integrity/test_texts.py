"""Texts in chunks, and rows that move to an archive."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Chunks, Contract, Retention
from pgconform.database import Database
from pgconform.model import Finding
from pgconform.probes import rows
from pgconform.probes.owners import owners
from pgconform.subjects import Declared, archives, chunked_tables, retentions


@check("chunks-complete", guide=["muva-28"], when=["daily"], each=chunked_tables)
def test_every_text_has_all_its_chunks(
    subject: Declared[Chunks], contract: Contract, database: Database
) -> Iterator[Finding]:
    """Every text has one total, as many chunks as it says, numbered without gap or repetition.

    A search answers from the chunks that are there, and does not know what is missing.
    """
    unit = rows.tenant_key(contract, subject.table, subject.item.unit)
    yield from rows.judge(database, rows.broken_units(subject, unit))


@check("retention", guide=["vs-17"], when=["monthly"], each=retentions)
def test_no_old_row_is_live(subject: Declared[Retention], catalog: Catalog, database: Database) -> Iterator[Finding]:
    """No row older than its retention is still live.

    What should have moved away slows every query, and is kept longer than was promised.
    """
    live = catalog.table(subject.table)
    for found in rows.judge(database, rows.overdue(subject)):
        yield rows.archived(found, subject, live.columns) if live and subject.item.archive else found


@check("archive-disjoint", guide=["vs-17"], when=["monthly"], each=archives)
def test_no_row_is_live_and_archived(
    subject: Declared[Retention], contract: Contract, catalog: Catalog, database: Database
) -> Iterator[Finding]:
    """No row is both live and archived.

    An archiving run that inserted and did not delete counts everything twice.
    """
    beside = owners(contract, catalog, subject.table, subject.item.key, subject.item.archive)
    yield from rows.judge(database, rows.live_and_archived(subject, beside))
