"""Why a search finds too little, or does not use its index: looked for in the catalogue, then tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pgconform.model import NotVerified
from pgconform.names import quote, remark
from pgconform.probes.findable import searched
from pgconform.probes.searching import INDEX_ONLY
from pgconform.remedies import create_vector_index
from pgconform.remedies_policies import fence, reopen
from pgconform.subjects import declared_overload
from pgconform.vector_indexes import candidates, odd_options, unusable
from pgconform.vectors import advice, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgconform.catalog import Index, Policy, Table
    from pgconform.checks import Evidence
    from pgconform.vectors.gates import Problem
    from pgconform.vectors.measuring import Measured, Measuring

BETTER = 0.1  # recall that a cause must make up for to be named
Cause = tuple[str, str]  # in words, and the SQL that removes it


def explained(problem: Problem, measuring: Measuring, number: int, found: Measured) -> Problem:
    """The problem with its cause and remedy, where they are found. Raises NotVerified."""
    finders = {"index": _index, "recall": _little, "rows": _little, "generic plan": _generic, "similarity": _other,
               "count": _count, "foreign rows": _open, "threshold": _other, "order": _order,
               "buffers": _more}  # fmt: skip
    finder = finders.get(problem.kind)
    cause, remedy = finder(measuring, number, found) if finder else ("", "")
    told = "; ".join(why for why in (cause, problem.cause) if why)
    return msgspec.structs.replace(problem, cause=told, remedy=remedy)


def _recreate(measuring: Measuring) -> str:
    return measuring.search.recreate(measuring.evidence.catalog)


def _generic(measuring: Measuring, _: int, __: Measured) -> Cause:
    function = declared_overload(measuring.search.function, measuring.search.promise, measuring.evidence.catalog)
    name = function.signature if function else measuring.search.function
    why = "after five executions the server keeps a generic plan, which knows neither tenant nor number of rows"
    if measuring.search.sql:
        return why, "set local plan_cache_mode = 'force_custom_plan';  -- before the query"
    return why, f"alter function {name} set plan_cache_mode = 'force_custom_plan';"


def _other(measuring: Measuring, _: int, __: Measured) -> Cause:
    search = measuring.search
    dimension = f"all {search.vector.dimension} dimensions"
    return (
        f"the function does not compare and filter by the {search.vector.metric} distance over {dimension}",
        _recreate(measuring),
    )


def _count(measuring: Measuring, _: int, __: Measured) -> Cause:
    return "the function does not keep to its limit, or joins what gives a row several times", _recreate(measuring)


def _order(measuring: Measuring, number: int, found: Measured) -> Cause:
    relaxed = [name for name, value in advice.pinned(measuring).items() if value == "relaxed_order"]
    if relaxed:
        why = f"{relaxed[0]} = relaxed_order returns rows slightly out of order, and the function does not sort again"
        return why, "-- select from the search as a materialized CTE, and order by its distance"
    return _other(measuring, number, found)


def _open(measuring: Measuring, number: int, _: Measured) -> Cause:
    if measuring.visible(number) > measuring.cases[number].rows:
        return "row security shows the caller rows of others", _policies(measuring, number, fence)
    return "the function reads past row security, and its filter by tenant is lost", _recreate(measuring)


def _policies(measuring: Measuring, number: int, remedy: Callable[[Evidence, Table, list[str]], str]) -> str:
    table = measuring.evidence.catalog.table(measuring.search.table)
    return remedy(measuring.evidence, table, [measuring.cases[number].who.role]) if table else ""


def _index(measuring: Measuring, number: int, _: Measured) -> Cause:
    """Why no index is scanned."""
    search, catalog = measuring.search, measuring.evidence.catalog
    table = catalog.table(search.table)
    if table is None or search.vector.index is None:
        return "the contract declares no index", ""
    faults = {str(i): unusable(i, search.column, search.vector) for i in candidates(table, search.column)}
    if "" not in faults.values():
        why = "; ".join(f"{i}: {fault}" for i, fault in faults.items()) or "there is no approximate index"
        drops = "".join(f"drop index {i};\n" for i in faults)
        return why, drops + create_vector_index(catalog, table, search.column, search.vector)
    if not measuring.scans(number, INDEX_ONLY):
        why = "the function cannot use the index: it orders by another expression than the index has"
        return why, _recreate(measuring)
    lower = f"alter database {quote(catalog.server.database)} set random_page_cost = 1.1;"
    return "the planner takes another way to be cheaper", f"analyze {table};\n-- if it still does: {lower}"


def _little(measuring: Measuring, number: int, found: Measured) -> Cause:
    """Why rows are missing."""
    if hidden := _hidden(measuring, number):
        return hidden
    if found.misjudged or found.unordered:
        return _other(measuring, number, found)
    if max(found.scanned, found.scanned_later) == 0:
        return "no vector index is scanned: the function filters or orders by something else", _recreate(measuring)
    used = measuring.indexes()[0]
    now = measuring.tried(number, {**INDEX_ONLY, **advice.pinned(measuring)}, sweep.QUERIES).recall
    try:
        fresh = _rebuilt(measuring, number, str(used))
    except NotVerified:
        fresh = now  # what cannot be tried is no cause
    if fresh > now + BETTER:
        return (
            f"{used} was built before its rows were there, or they have changed since: built anew, it gives a recall of"
            f" {fresh:.2f} instead of {now:.2f}", f"reindex index {used};",
        )  # fmt: skip
    if now > found.recall + BETTER:
        why = "leaves out rows that the search which the contract implies finds under the same settings"
        return f"{measuring.search.function} {why}: it may limit before it filters", _recreate(measuring)
    return _effort(measuring, used)


def _effort(measuring: Measuring, used: Index) -> Cause:
    """Which setting lets the search find enough."""
    search, effort = measuring.search, sweep.EFFORT[used.method]
    best = advice.found(measuring, advice.curve(measuring), failing=True)
    if best.point is None:
        told = f"{used} finds too little for some caller under any setting of {effort} under which it is scanned"
        if measuring.evidence.contract.tables[search.table].holds == "child":
            return (
                told,
                f"-- give {search.table} a column with the tenant, and an index, partition or partial index by it",
            )
        return (
            told,
            f"-- give {search.table} a btree index on its tenant, or a partition or partial index for each tenant",
        )
    why = f"the search looks at too little of {used}, which knows nothing of tenants: {effort} is too small"
    if stale := advice.stale(measuring, best.point):
        return stale[1], best.sql.partition("\n")[2]  # without the remark, which says why
    return why, best.sql


def _hidden(measuring: Measuring, number: int) -> Cause | None:
    """Rows that the contract calls the caller's own and the search looks at, and that row security hides. Policies that
    ask something of the row itself are not opened: what they hide may be hidden on purpose."""
    case, contract = measuring.cases[number], measuring.evidence.contract
    try:
        seen = measuring.visible(number, searched(measuring.search, dict(case.given)))
    except NotVerified:
        return None  # who may not read the table is shown its rows by the function
    if seen >= case.findable:
        return None
    why = f"row security hides {case.findable - seen} of the caller's own {case.findable} rows"
    table = measuring.evidence.catalog.table(measuring.search.table)
    own = contract.column_of(measuring.search.table)
    if named := ", ".join(quote(policy.name) for policy in _asking_more(table, own)) if table else "":
        told = (
            f"{named} of {table} asks for more than whose the row is: rows that are hidden on purpose belong into the"
        )
        return why, remark(f"{told} search's where in the contract; else mend the policy")
    return why, _policies(measuring, number, reopen)


def _asking_more(table: Table, own: str) -> Iterator[Policy]:
    """Policies with a condition on columns of the row besides the one that says whose it is."""
    from pgconform.expressions import shape

    for policy in table.policies:
        if policy.command in ("ALL", "SELECT") and policy.using and shape(policy.using, table.name).columns - {own}:
            yield policy


def _more(measuring: Measuring, _: int, __: Measured) -> Cause:
    """Why a search reads more of its index than it did."""
    search = measuring.search
    table, promise = measuring.evidence.catalog.table(search.table), search.vector.index
    if table and promise:
        for index in candidates(table, search.column):
            for why, setting in odd_options(index, table, promise):
                return f"{index}: {why}", f"alter index {index} set ({setting});\nreindex index {index};"
    return "", ""


def _rebuilt(measuring: Measuring, number: int, index: str) -> float:
    """The recall with the index built anew, in a transaction that is undone; on disposable targets only."""
    if measuring.evidence.writing is None:
        raise NotVerified("a live target is never written")
    with measuring.changed([f"reindex index {index}"], f"building {index} anew") as other:
        return other.tried(number, {**INDEX_ONLY, **advice.pinned(measuring)}, sweep.QUERIES).recall
