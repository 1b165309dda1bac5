"""Whether searches through the contract's functions scan a vector index: where nothing else gives the order, and where
the planner is free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pgconform.model import Nothing, NotVerified
from pgconform.probes.calling import honest_call
from pgconform.probes.findable import arguments, own_rows, searched
from pgconform.probes.searching import INDEX_ONLY, Budget, callers
from pgconform.probes.untried import largest, refused
from pgconform.statements import Name, joined, statement

if TYPE_CHECKING:
    from pgconform.checks import Evidence
    from pgconform.subjects import Searching


def index_scans(search: Searching, evidence: Evidence, indexes: Iterable[Name], settings: Mapping[str, str]) -> int:
    """How often a search by a member of the largest tenant scanned one of the indexes, under these settings.

    Raises Nothing where nobody could search, NotVerified.
    """
    who, vector = largest(search, evidence)
    counts = [
        statement(
            "select pg_catalog.pg_stat_get_xact_numscans(c.oid) as scans from pg_catalog.pg_class as c"
            " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace where n.nspname = {s} and c.relname = {i}",
            s=index[0], i=index[1],
        )
        for index in indexes
    ]  # fmt: skip
    count = statement(
        "select coalesce(pg_catalog.sum(i.scans), 0)::bigint from ({all}) as i", all=joined(counts, " union all ")
    )
    what = f"searching through {search.function}"
    before = evidence.database.one(count, what)[0]
    try:
        call, further = honest_call(search, evidence, who, vector), tuple(settings.items())
        evidence.database.rows(call, what, role=who.role, settings=(*who.settings, *further))
    except NotVerified as reason:
        raise refused(search, reason) from None
    return int(evidence.database.one(count, what)[0]) - int(before)


def unscanned(search: Searching, evidence: Evidence, indexes: list[Name]) -> tuple[str, str]:
    """Why a search scans none of the indexes, and what to do about it; two empty texts where it scans one.

    Without other ways to the order it must; and of itself, where the caller owns as many rows as the contract's
    ``index_from``. Raises Nothing where there is no index or caller, NotVerified, also when the time for it is spent.
    """
    budget = Budget(evidence)
    budget.need(f"a search through {search.function}")
    if not indexes:
        raise Nothing(f"{search.table} has no valid vector index")
    recreate, promise = search.recreate(evidence.catalog), search.promise.search
    if not index_scans(search, evidence, indexes, INDEX_ONLY):
        return f"it does not scan a vector index of {search.table}", recreate
    rows = _own(search, evidence)
    if not promise or rows < promise.index_from:
        return "", ""
    budget.need(f"a second search through {search.function}")
    if index_scans(search, evidence, indexes, {}):
        return "", ""
    observed = f"the planner leaves the vector index of {search.table}, for a caller with {rows} rows"
    further = "-- if it still does, reading the index is taken to be dear: random_page_cost = 1.1 suits most disks"
    return observed, f"analyze {search.table};\n{recreate}\n{further}"


def _own(search: Searching, evidence: Evidence) -> int:
    """How many rows the caller who has most may find."""
    mine = own_rows(search, evidence, callers(search, evidence)[-1])
    question = statement(
        "select pg_catalog.count(*) from {t} as r where {mine} and {searched}",
        t=Name.of(search.table), mine=mine, searched=searched(search, arguments(search, evidence, mine)),
    )  # fmt: skip
    return int(evidence.database.remembered(question, f"counting rows of {search.table}")[0][0])
