"""Settings of a vector index as advice: other than those in force, and tried with the function or query itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from pgconform.names import remark
from pgconform.statements import statement
from pgconform.subjects import declared_overload
from pgconform.vector_indexes import odd_options
from pgconform.vectors import asking, sweep

if TYPE_CHECKING:
    from pgconform.catalog import Function
    from pgconform.vectors.measuring import Measuring
    from pgconform.vectors.sweep import Point

MOST = 3  # good settings that are tried with the planner free
# Times the root of an ivfflat index's lists: of lists that suit the rows, pgvector's README has probes begin with it.
FAR = 3.0


class Advice(msgspec.Struct, frozen=True):
    """The cheapest good setting that was found, as SQL; ``point`` is what it gives, None where none is good enough."""

    sql: str = ""
    point: Point | None = None


def _function(measuring: Measuring) -> Function | None:
    search = measuring.search
    return None if search.sql else declared_overload(search.function, search.promise, measuring.evidence.catalog)


def pinned(measuring: Measuring) -> dict[str, str]:
    """The settings of vector indexes that the function has: a session's are none to it."""
    function = _function(measuring)
    listed = function.configuration if function else {}
    return {name: value for name, value in listed.items() if name.split(".")[0] in sweep.EFFORT}


def sets_itself(measuring: Measuring) -> bool:
    """True where the function's body names such settings: neither a session's nor its own may be any to it."""
    function = _function(measuring)
    return function is not None and any(f"{method}." in function.body for method in sweep.EFFORT)


@contextmanager
def _trial(measuring: Measuring) -> Iterator[tuple[Measuring, bool]]:
    """Where settings are tried, and whether it is with the function or query itself: a function's own settings are
    taken from it where that may be undone; else the search that the contract implies has to do."""
    function = _function(measuring)
    if _untried(measuring):
        yield measuring, False
    elif function and (own := pinned(measuring)):
        lines = [f"alter function {function.signature} reset {name}" for name in own]
        with measuring.changed(lines, "taking the function's settings from it") as other:
            yield other, True
    else:
        yield measuring, True


def _untried(measuring: Measuring) -> bool:
    """True where a session's settings are none to the function, and its own cannot be taken from it here."""
    return sets_itself(measuring) or (bool(pinned(measuring)) and measuring.evidence.writing is None)


def curve(measuring: Measuring) -> list[Point]:
    """A point for each setting of each method that has an index. Raises NotVerified."""
    with _trial(measuring) as (where, own):
        return sweep.curve(where, own)


def in_force(measuring: Measuring, names: Mapping[str, str]) -> dict[str, str]:
    """The values that these settings have when the search is called. Raises NotVerified."""
    own, found = pinned(measuring), {}
    with measuring.sessions() as session:
        asking.touch(session, measuring.schema)
        for name in names:
            question = statement("select pg_catalog.current_setting({n}, true)", n=name)
            found[name] = own.get(name) or str(session.one(question, f"reading {name}")[0])
    return found


def found(measuring: Measuring, points: list[Point], failing: bool = False) -> Advice:
    """The best of these settings, or of those in force, that gives every caller all rows and the promised recall, also
    by the function or query itself with the planner free, where that can be tried. Those in force are none, nor are any
    with less effort, where the search is ``failing`` under them. Raises NotVerified."""
    now = [in_force(measuring, point.settings) for point in {tuple(p.settings): p for p in points}.values()]
    here = [p for p in points if p.settings in now]
    with _trial(measuring) as (where, own):
        here += [sweep.point(where, one, own) for one in now if all(one != p.settings for p in here)]
    others = [p for p in points if p not in here and not (failing and any(_less(p.settings, one) for one in now))]
    good = list(sweep.good(others if failing else [*here, *others], measuring.spec.recall))
    for point in good[:MOST]:
        if point in here and _promised(measuring, {}):
            named = ", ".join(f"{name} = {value}" for name, value in point.settings.items())
            return Advice(f"-- in force already: {named}", point)
        if point not in here and _keeps(measuring, point.settings):
            return Advice(_sql(measuring, point), point)
    for point in good[:1]:  # with so much effort the planner takes another way, which needs no index
        if anew := stale(measuring, point):
            return Advice("\n".join((remark(anew[1]), anew[0])), point)
    return Advice()


def _less(settings: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """True where they differ by less effort only."""
    efforts = [name for name in settings if name in sweep.EFFORT.values() and name in other]
    return any(
        int(settings[name]) < int(other[name]) and {**settings, name: ""} == {**other, name: ""} for name in efforts
    )


def _promised(measuring: Measuring, wanted: Mapping[str, str]) -> bool:
    """True where the function or query gives what is promised and scans the index, though the planner is free."""
    return any(sweep.good([sweep.point(measuring, wanted, own=True, kept={})], measuring.spec.recall))


def _keeps(measuring: Measuring, wanted: Mapping[str, str]) -> bool:
    """The same under settings that are not in force; and where it cannot be tried."""
    with _trial(measuring) as (where, own):
        return not own or _promised(where, wanted)


def _lines(measuring: Measuring, wanted: Mapping[str, str]) -> list[str]:
    search, function = measuring.search, _function(measuring)
    if search.sql:
        return [f"set local {name} = '{value}';  -- before the query" for name, value in wanted.items()]
    if function and sets_itself(measuring):
        return [f"-- in the body of {search.function}: {name} = {value}" for name, value in wanted.items()]
    return [f"alter function {function.signature} set {n} = '{value}';" for n, value in wanted.items() if function]


def _sql(measuring: Measuring, point: Point) -> str:
    """SQL that gives the function, or the query, what is not in force yet."""
    now = in_force(measuring, point.settings)
    lines = _lines(measuring, {name: value for name, value in point.settings.items() if value != now[name]})
    if "relaxed_order" in point.settings.values():
        lines.append("-- relaxed_order returns rows slightly out of order: sort them again, out of a materialized CTE")
    if _untried(measuring):
        lines.append("-- not tried with the function, whose own settings no session changes: measure again")
    if anew := stale(measuring, point):
        later = [line if line.startswith("--") else remark(line) for line in lines]
        lines = [remark(anew[1]), anew[0], remark("where as many are needed after that:"), *later]
    return "\n".join(lines)


def stale(measuring: Measuring, point: Point) -> tuple[str, str] | None:
    """What builds an ivfflat index anew that seems to be older than its rows, and why; None where not so many of its
    lists are needed, or targets are disposable: there it is tried."""
    search = measuring.search
    table = measuring.evidence.catalog.table(search.table)
    probes = int(point.settings.get(sweep.EFFORT["ivfflat"], 0)) if measuring.evidence.writing is None else 0
    for index in measuring.indexes():
        lists = int(index.options.get("lists", sweep.LISTS))
        if index.method == "ivfflat" and probes > FAR * lists**0.5:
            odd = list(odd_options(index, table, search.vector.index)) if table and search.vector.index else []
            why = odd[0][0] if odd else "it was built on few rows, or rows have changed since"
            first = f"alter index {index} set ({odd[0][1]});\n" if odd else ""
            return (
                f"{first}reindex index {index};",
                f"{index}: {probes} of {lists} lists is far more than their root: {why}",
            )
    return None
