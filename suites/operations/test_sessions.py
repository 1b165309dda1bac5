"""What the server does now: sessions, slots, prepared transactions."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.names import literal, quote
from pgconform.probes import activity, storage
from pgconform.subjects_operations import operations

BY_STATE = (
    "select a.usename, a.state, pg_catalog.count(*) from pg_catalog.pg_stat_activity as a"
    " where a.backend_type = 'client backend' group by 1, 2 order by 3 desc;"
)


@check("connections-used", guide=["muva-36", "vs-10", "vs-23", "vs-30"], when=["daily"], each=operations)
def test_connections_are_left(subject: Operations, database: Database) -> Iterator[Finding | Figure]:
    """Fewer than the declared share of the connections that clients may have are in use.

    When none is left, the application is down though the server is up, and nobody can look why.
    """
    found = activity.connections(database)
    yield Figure("connections used", round(found.share, 4), "share")
    if found.share > subject.connections:
        observed = f"{found.used} of {found.most} connections are in use: {found.by_state}"
        remedy = "-- pool connections (transaction mode), or raise max_connections; end what is idle:\n" + END_IDLE
        yield Finding("max_connections", observed, remedy, rows=BY_STATE).against(
            found.share, subject.connections, "share"
        )


END_IDLE = (
    "select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity as a"
    " where a.backend_type = 'client backend' and a.state = 'idle' and a.datname = pg_catalog.current_database()"
    " and a.application_name <> 'pgconform' and a.pid <> pg_catalog.pg_backend_pid();"
)


@check("response-time", guide=["vs-30"], when=["daily"], each=operations)
def test_the_server_answers_quickly(
    subject: Operations, catalog: Catalog, database: Database
) -> Iterator[Finding | Figure]:
    """A query that does nothing is answered within the declared time.

    What every request pays first: the network, the pooler, a server that has no processor left.
    """
    taken = activity.response(database)
    yield Figure("response time", round(taken, 3), "ms")
    yield Figure("sequential scans of protected tables", storage.scanned(database, catalog), "share")
    if taken > subject.response_ms:
        remedy = "-- look at the network and the pooler first, then at what runs:\n" + BY_STATE
        observed = f"a query that does nothing takes {taken:,.1f} ms"
        found = Finding(quote(catalog.server.database), observed, remedy)
        yield found.against(taken, subject.response_ms, "ms")


@check("sessions-running", guide=["vs-10", "vs-21", "vs-23"], when=["daily"], each=operations)
def test_no_session_runs_for_long(subject: Operations, database: Database) -> Iterator[Finding]:
    """No session of a client executes, in one transaction, for longer than the declared minutes.

    It holds its locks, and keeps vacuum from removing what all others have deleted since.
    """
    for found in activity.stuck(database, activity.RUNNING, subject.running_minutes):
        observed = f"{found.sessions} session(s) run for up to {found.minutes:.1f} minutes; the longest: {found.text}"
        finding = Finding(quote(found.role), observed, found.ended, "running", rows=found.shown)
        yield finding.against(found.minutes, subject.running_minutes, "minutes")


@check("sessions-idle-in-transaction", guide=["vs-10", "vs-23"], when=["daily"], each=operations)
def test_no_session_is_idle_in_a_transaction(subject: Operations, database: Database) -> Iterator[Finding]:
    """No session of a client waits inside a transaction for longer than the declared minutes.

    It holds its locks while it does nothing; the next migration waits for it, and everybody for that.
    """
    for found in activity.stuck(database, activity.IDLE_IN_TRANSACTION, subject.idle_in_transaction_minutes):
        observed = f"{found.sessions} session(s) are idle in a transaction, for up to {found.minutes:.1f} minutes"
        finding = Finding(quote(found.role), observed, found.ended, "idle in transaction", rows=found.shown)
        yield finding.against(found.minutes, subject.idle_in_transaction_minutes, "minutes")


@check("sessions-idle", guide=["vs-10"], when=["daily"], each=operations)
def test_few_sessions_are_idle_for_long(subject: Operations, database: Database) -> Iterator[Finding]:
    """Fewer than the declared share of the connections belong to sessions that have been idle for long.

    Clients that never give back what they do not use take it from all others.
    """
    idle = activity.stuck(database, activity.IDLE, subject.idle_minutes)
    most = activity.connections(database).most
    if sum(found.sessions for found in idle) > subject.idle * most:
        for found in idle:
            observed = f"{found.sessions} of {most} connections idle for up to {found.minutes:.0f} minutes"
            finding = Finding(quote(found.role), observed, found.ended, "idle", rows=found.shown)
            yield finding.against(sum(each.sessions for each in idle) / most, subject.idle, "share")


@check("slots-keep-up", guide=["vs-22"], when=["daily"], each=operations)
def test_no_slot_holds_back_the_log(subject: Operations, database: Database) -> Iterator[Finding]:
    """No replication slot holds back more of the write-ahead log than declared, or has lost what it needs.

    The log that nobody fetches stays until the disk is full.
    """
    rows = "select s.* from pg_catalog.pg_replication_slots as s order by s.slot_name;"
    for slot in activity.slots(database):
        who = "in use" if slot.active else "used by nobody"
        remedy = f"select pg_catalog.pg_drop_replication_slot({literal(slot.name)});"
        if slot.status == "lost":
            observed = f"is {who}, and what it still had to fetch of the log is gone"
            yield Finding(quote(slot.name), observed, remedy, destroys=True, rows=rows)
        elif slot.kept > subject.slot_gb * 1e9:
            observed = f"is {who}, and keeps {slot.kept / 1e9:.3g} GB of the log ({slot.status})"
            finding = Finding(quote(slot.name), observed, remedy, destroys=True, rows=rows)
            yield finding.against(slot.kept / 1e9, subject.slot_gb, "GB")


@check("prepared-transactions", guide=["vs-11"], when=["daily"], each=operations)
def test_no_prepared_transaction_is_forgotten(
    subject: Operations, catalog: Catalog, database: Database
) -> Iterator[Finding]:
    """No prepared transaction is older than the declared minutes.

    It survives restarts, holds its locks, and stops vacuum; nothing shows it but its own view.
    """
    for gid, minutes in activity.prepared(database, subject.prepared_minutes):
        observed = f"was prepared {minutes:.1f} minutes ago, and neither committed nor rolled back"
        rows = "select p.* from pg_catalog.pg_prepared_xacts as p order by p.prepared;"
        remedy = f"rollback prepared {literal(gid)};"
        finding = Finding(quote(catalog.server.database), observed, remedy, quote(gid), destroys=True, rows=rows)
        yield finding.against(minutes, subject.prepared_minutes, "minutes")
