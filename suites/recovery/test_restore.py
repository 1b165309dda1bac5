"""Whether the database can be brought back: a dump of it, restored into a scratch server, and compared."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.names import quote
from pgconform.recovery import compare, restored
from pgconform.recovery.copies import Copies
from pgconform.recovery.tools import Unrestorable
from pgconform.subjects_operations import whole


@check("restore-complete", guide=["muva-32", "vs-19", "vs-29"], when=["monthly"], each=whole, drill=True)
def test_a_dump_restores_to_the_same_database(
    subject: str, catalog: Catalog, contract: Contract, database: Database, copies: Copies
) -> Iterator[Finding | Figure]:
    """A dump, restored elsewhere, has the same objects and the same rows.

    A backup that nobody has restored is a hope.
    """
    before = compare.sequences(database, catalog)
    try:
        found = copies.restored()
    except Unrestorable as error:
        yield Finding(quote(catalog.server.database), str(error), restored.CATALOGUE)
        return
    yield Figure(f"restore of {subject}", round(found.seconds, 2), "seconds")
    yield Figure("restore speed", round(found.size / 1e6 / found.seconds, 2), "MB/s")
    yield from restored.compared(found.copy, catalog, contract, database, before)
