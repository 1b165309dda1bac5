"""Whether the database can be brought back: a dump of it, restored into a scratch server, and compared."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.recovery import asked, restored
from pgconform.recovery.copies import Copies
from pgconform.subjects_operations import tenant_schemas, whole


@check("restore-complete", guide=["muva-32", "vs-19", "vs-29"], when=["monthly"], each=whole, drill=True)
def test_a_dump_restores_to_the_same_database(
    subject: str, catalog: Catalog, contract: Contract, database: Database, copies: Copies
) -> Iterator[Finding | Figure]:
    """A dump, restored elsewhere, has the same objects and the same rows.

    A backup that nobody has restored is a hope.
    """
    yield from asked.restored_part(subject, copies, catalog, contract, database)


@check("schema-restored", guide=["muva-32"], when=["monthly"], each=tenant_schemas, drill=True)
def test_a_dump_of_a_schema_restores_to_the_same_schema(
    subject: str, catalog: Catalog, contract: Contract, database: Database, copies: Copies
) -> Iterator[Finding | Figure]:
    """A schema that is lost comes back from a dump of it alone: the same objects, the same rows.

    What a schema takes from outside, or what the server gives to whatever is made anew, is in no dump of it.
    """
    yield from restored.schema(copies, catalog, contract, database, subject)
