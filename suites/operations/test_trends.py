"""What changes from run to run: growth of the tenants, the day on which the disk is full, and the runs themselves."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.contract_operations import Trends
from pgconform.database import Database
from pgconform.history import History
from pgconform.model import Figure, Finding, Nothing
from pgconform.names import quote
from pgconform.probes import growth
from pgconform.subjects import Declared
from pgconform.subjects_operations import trends, watched_tables


@check("tenant-growth", guide=["muva-35"], when=["weekly"], each=watched_tables)
def test_tenants_grow_as_before(
    subject: Declared[Trends], contract: Contract, database: Database, history: History
) -> Iterator[Finding | Figure]:
    """No tenant gains rows in quite another way than in the same time before.

    A runaway import fills the disk for all tenants; one that stopped is missed by nobody else.
    """
    figures = growth.rows(database, contract, subject.table)
    yield from figures
    yield from growth.departing(subject, figures, history, contract)


@check("tenant-silent", guide=["muva-35"], when=["weekly"], each=watched_tables)
def test_no_tenant_has_gone_silent(
    subject: Declared[Trends], contract: Contract, database: Database, history: History
) -> Iterator[Finding]:
    """No tenant that gained rows before has stopped to gain any.

    Nothing fails when a tenant's data stop to come: an expired key, a broken webhook.
    """
    figures = growth.rows(database, contract, subject.table)
    yield from growth.fallen_silent(subject, figures, history, contract)


@check("days-to-full", guide=["vs-22", "muva-26"], when=["daily"], each=trends)
def test_the_disk_will_not_be_full_soon(
    subject: Trends, catalog: Catalog, database: Database, history: History
) -> Iterator[Finding | Figure]:
    """At the pace of its last weeks, the database stays below its capacity for long enough.

    A full disk stops every write at once, and archiving needs space itself.
    """
    now = growth.size(database)
    yield now
    yield from growth.filling(subject, now, history, quote(catalog.server.database))


@check("history-without-gap", guide=["vs-30"], when=["daily"], each=trends)
def test_runs_are_recorded_without_a_gap(subject: Trends, catalog: Catalog, history: History) -> Iterator[Finding]:
    """The run before this one is not long ago.

    Nightly runs that silently stopped look just like nights without findings.
    """
    age = history.last()
    if age is None:
        raise Nothing("this is the first recorded run")
    if age > subject.gap:
        observed = f"the run before this one was {age:.1f} days ago; {subject.gap:g} are allowed"
        yield Finding(quote(catalog.server.database), observed, "-- see why the scheduled runs did not run")
