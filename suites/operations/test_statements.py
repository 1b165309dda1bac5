"""What statements cost, as pg_stat_statements counted since it was last reset."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.model import Figure, Finding
from pgconform.names import qualified
from pgconform.probes import activity
from pgconform.subjects_operations import operations

SHOWN = 3  # statements that are named as the most called ones


def _finding(call: activity.Call, calls: list[activity.Call], catalog: Catalog) -> Finding:
    """What a reader needs to act: the statement, what it costs, what is called most besides; how to begin anew."""
    extension = catalog.extension("pg_stat_statements")
    view = qualified(extension.schema if extension else "", "pg_stat_statements")
    most = ", ".join(f"{c.queryid} ({c.calls:,})" for c in sorted(calls, key=lambda c: -c.calls)[:SHOWN])
    observed = (
        f"takes {call.mean_ms:,.0f} ms on average, {call.calls:,} time(s): {call.shown} (queryid {call.queryid});"
        f" called most: {most}"
    )
    rows = f"select s.* from {view} as s where s.queryid = {call.queryid};"
    remedy = (
        "-- EXPLAIN (ANALYZE, BUFFERS) it and give it an index or fewer rows; then have it counted anew:\n"
        f"select {view}_reset(0, d.oid, {call.queryid}) from pg_catalog.pg_database as d"
        " where d.datname = pg_catalog.current_database();"
    )
    return Finding(call.name, observed, remedy, rows=rows)


@check("statements-fast", guide=["vs-8", "vs-21", "vs-30"], when=["daily"], each=operations)
def test_no_statement_is_slow(
    subject: Operations, catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding | Figure]:
    """No statement that is called often takes longer on average than declared.

    One slow statement, called often, is what makes everything slow.
    """
    calls = activity.calls(database, catalog, contract)
    others = [call for call in calls if not call.searches]
    slow = [c for c in others if c.calls >= subject.least_calls and c.mean_ms > subject.statement_ms]
    for call in slow:
        yield _finding(call, calls, catalog).against(call.mean_ms, subject.statement_ms, "ms")
    if not slow:
        activity.need_calls(others, subject.least_calls, "statement", database, catalog)
    yield Figure("slow statements", len(slow), "statements")


@check("searches-fast", guide=["muva-27"], when=["weekly"], each=operations)
def test_no_search_is_slow(
    subject: Operations, catalog: Catalog, contract: Contract, database: Database
) -> Iterator[Finding]:
    """No statement that searches embeddings takes longer on average than declared.

    A search that no longer uses its index is the first to be felt.
    """
    calls = activity.calls(database, catalog, contract)
    searching = [call for call in calls if call.searches]
    slow = [c for c in searching if c.calls >= subject.least_calls and c.mean_ms > subject.search_ms]
    for call in slow:
        yield _finding(call, calls, catalog).against(call.mean_ms, subject.search_ms, "ms")
    if not slow:
        activity.need_calls(searching, subject.least_calls, "search", database, catalog)
