"""Whether one tenant can be brought back without touching any other."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.recovery import rehearsed
from pgconform.recovery.copies import Copies
from pgconform.recovery.tenants import extremes
from pgconform.subjects_operations import tenancies


@check("tenant-export-complete", guide=["muva-33"], when=["monthly"], each=tenancies, drill=True)
def test_an_export_of_a_tenant_loads_elsewhere(
    subject: str, catalog: Catalog, contract: Contract, database: Database, copies: Copies
) -> Iterator[Finding | Figure]:
    """One tenant's rows, exported from all its tables and loaded elsewhere, are the same rows, and no others.

    Who leaves takes everything along, and nothing of anybody else's.
    """
    tenants = extremes(database, contract, catalog, subject)
    yield from rehearsed.elsewhere(copies, catalog, contract, database, subject, tenants)


@check("tenant-restored", guide=["muva-39"], when=["quarterly"], each=tenancies, drill=True)
def test_a_lost_tenant_can_be_brought_back(
    subject: str, catalog: Catalog, contract: Contract, copies: Copies
) -> Iterator[Finding]:
    """One tenant's rows can be deleted and brought back, and all tables hold the same rows as before.

    When one tenant's data are lost, restoring everybody's is no answer.
    """
    yield from rehearsed.in_place(copies, catalog, contract, subject)
