"""Notifications: what a trigger tells all listeners is no more than which row of whom."""

from collections.abc import Iterator

from pgconform.bodies import rows_in, sent
from pgconform.catalog import Catalog, Function, Table, Trigger
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.subjects import promise_of

Senders = frozenset[str]


def private_relations(catalog: Catalog, contract: Contract) -> Iterator[tuple[Table, Senders]]:
    """Declared relations with rows of tenants, of users or of their children."""
    notifying = (f for f in catalog.functions if f.returns != "trigger" and "notify" in f.body.lower())
    senders = frozenset(f.name for f in notifying if sent(f.body))
    for table in catalog.tables:
        promise = promise_of(catalog, contract, table)
        if promise and promise.holds in ("tenant", "user", "child"):
            yield table, senders


def _firing(table: Table, catalog: Catalog) -> Iterator[tuple[Trigger, Function]]:
    """Triggers that fire in ordinary sessions, with their functions; a partition's copies are its parent's."""
    parent = catalog.table(table.parent)
    copied = {(t.name, t.function) for t in parent.triggers} if parent else set()
    for trigger in table.triggers:
        if not trigger.internal and trigger.enabled in ("O", "A") and (trigger.name, trigger.function) not in copied:
            yield from ((trigger, f) for f in catalog.functions_named(trigger.function) if f.returns == "trigger")


def _keys(table: Table, catalog: Catalog, contract: Contract) -> set[str]:
    """Columns that say which row it is, and whose."""
    promise = promise_of(catalog, contract, table)
    declared = next(name for name, each in contract.tables.items() if each is promise)
    return {*table.primary_key, contract.column_of(declared), *(t.column for t in contract.tenancies.values())}


@check("notify-payload", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=private_relations)
def test_no_notification_carries_a_row(
    subject: tuple[Table, Senders], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """No trigger on rows of tenants or users sends more of a row by NOTIFY than its key and whose it is.

    Any session may listen on any channel, whoever it is: no grant and no policy is asked. A listener that is told the
    key asks for the row itself, and gets it where the policies let it.
    """
    table, senders = subject
    for trigger, function in _firing(table, catalog):
        whole, columns = rows_in(sent(function.body, senders))
        told = sorted(columns - _keys(table, catalog, contract))
        if whole or told:
            what = "the whole row" if whole else f"column(s) {', '.join(map(quote, told))}"
            observed = f"{function.signature} sends {what} to all who listen; send the key only, or drop the trigger"
            remedy = f"drop trigger {quote(trigger.name)} on {table};"
            yield Finding(str(table), observed, remedy, detail=quote(trigger.name))
