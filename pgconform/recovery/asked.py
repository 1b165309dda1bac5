"""What --drill names, restored: the whole database, one schema, or one tenant."""

from __future__ import annotations

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.recovery import rehearsed, restored
from pgconform.recovery.copies import Copies
from pgconform.recovery.tenants import knowing


def restored_part(
    subject: str, copies: Copies, catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding | Figure]:
    """A finding for whatever is not as it is on the target. Raises NotVerified."""
    drill = copies.drill
    if drill.schema:
        yield from restored.schema(copies, catalog, contract, database, drill.schema)
    elif drill.tenant:
        for tenancy in knowing(database, contract, catalog, drill.tenant):
            tenants = {"the tenant": drill.tenant}
            yield from rehearsed.elsewhere(copies, catalog, contract, database, tenancy, tenants)
    else:
        yield from restored.whole(subject, copies, catalog, contract, database)
