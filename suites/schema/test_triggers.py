"""Triggers: none is disabled, those least of all that keep foreign keys."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.subjects import application_tables


def stored_tables(catalog: Catalog, contract: Contract) -> Iterator[Table]:
    """Application tables that store rows."""
    return (t for t in application_tables(catalog, contract) if t.stores_rows)


@check("triggers-enabled", guide=["muva-29", "vs-34"], when=["gate", "quarterly"], of=stored_tables)
def test_no_trigger_is_disabled(table: Table) -> Iterator[Finding]:
    """Every trigger of an application table fires in ordinary sessions.

    A foreign key is kept by triggers: after DISABLE TRIGGER ALL it looks valid, and any orphan goes in.
    """
    for trigger in table.triggers:
        if trigger.enabled in ("D", "R"):
            what = "a trigger of a foreign key" if trigger.internal else f"trigger {quote(trigger.name)}"
            observed = f"{what} {'is disabled' if trigger.enabled == 'D' else 'fires for replicas only'}"
            remedy = f"alter table {table} enable trigger {quote(trigger.name)};"
            yield Finding(
                str(table), observed, remedy, detail="foreign key" if trigger.internal else quote(trigger.name)
            )
