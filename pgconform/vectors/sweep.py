"""Recall against time over the settings of a vector index, and the cheapest setting that is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from pgconform.model import NotVerified
from pgconform.probes.searching import INDEX_ONLY
from pgconform.subjects import declared_overload
from pgconform.vectors.measuring import Tried

if TYPE_CHECKING:
    from pgconform.vectors.measuring import Measuring

QUERIES = 20  # of those given, for each point and caller
ALIKE = 1.25  # times that differ by less are the same
LISTS = 100  # pgvector's default number
LARGEST = {"ivfflat": 32_768, "hnsw": 1000}  # values that the settings take (pgvector's README)
FIRST = {"ivfflat": 1, "hnsw": 10}
EFFORT = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}
ITERATIVE = {"ivfflat": ("off", "relaxed_order"), "hnsw": ("off", "strict_order", "relaxed_order")}


class Point(msgspec.Struct, frozen=True):
    """One setting, and what came of it for each case that owns rows, by its name."""

    settings: dict[str, str]
    tried: dict[str, Tried]

    @property
    def least(self) -> float:
        """Recall of the caller who has the worst."""
        return min(one.recall for one in self.tried.values())

    @property
    def short(self) -> int:
        """Queries of all callers with fewer rows than qualify."""
        return sum(one.short for one in self.tried.values())

    @property
    def slowest(self) -> Tried:
        """The caller who waits longest."""
        return max(self.tried.values(), key=lambda one: one.ratio)

    @property
    def scanning(self) -> int:
        """How many callers scan the index."""
        return sum(one.scanned > 0 for one in self.tried.values())


def settings(method: str, lists: int, iterative: bool) -> Iterator[dict[str, str]]:
    """From the cheapest to the most thorough: the effort doubles each time."""
    largest = min(lists, LARGEST[method]) if method == "ivfflat" else LARGEST[method]
    for scan in ITERATIVE[method] if iterative else ("",):
        effort = FIRST[method]
        while True:
            value = min(effort, largest)
            yield {EFFORT[method]: str(value)} | ({f"{method}.iterative_scan": scan} if scan else {})
            if value == largest:
                break
            effort *= 2


def curve(measuring: Measuring) -> list[Point]:
    """A point for each setting of each method that has an index, by the search that the contract implies; the index is
    what is measured, so the planner is kept on it. Empty without one. Raises NotVerified."""
    indexes = measuring.indexes()
    version = measuring.evidence.catalog.extension("vector")
    iterative = version is not None and tuple(map(int, version.version.split(".")[:2])) >= (0, 8)
    lists = max((int(i.options.get("lists", LISTS)) for i in indexes if i.method == "ivfflat"), default=LISTS)
    methods = dict.fromkeys(index.method for index in indexes)
    return [point(measuring, chosen) for method in methods for chosen in settings(method, lists, iterative)]


def point(measuring: Measuring, chosen: Mapping[str, str]) -> Point:
    """Recall and time under one setting."""
    found = {
        case.name: measuring.tried(n, {**INDEX_ONLY, **chosen}, QUERIES)
        for n, case in enumerate(measuring.cases)
        if case.rows
    }
    if not found:
        raise NotVerified(f"no caller of {measuring.search.function} owns a row")
    return Point(dict(chosen), found)


def cheapest(points: list[Point], recall: float) -> Point | None:
    """The fastest for its slowest caller, of those that give every caller all rows and the recall, and of about equally
    fast ones the first; None where none is good enough, or the index is not scanned, so that settings mean nothing."""
    enough = [point for point in points if point.least >= recall and not point.short and point.scanning]
    fastest = min((point.slowest.ratio for point in enough), default=0.0)
    return next((point for point in enough if point.slowest.ratio <= ALIKE * fastest), None)


def setting_sql(measuring: Measuring, chosen: Mapping[str, str]) -> str:
    """SQL that gives the function these settings; '' where it is not there as declared."""
    search = measuring.search
    if search.sql:
        return "\n".join(f"set local {name} = '{value}';  -- before the query" for name, value in chosen.items())
    function = declared_overload(search.function, search.promise, measuring.evidence.catalog)
    if function is None:
        return ""
    given = {name: value for name, value in chosen.items() if value != "off"}  # which is the default
    lines = [f"alter function {function.signature} set {name} = '{value}';" for name, value in given.items()]
    if "relaxed_order" in given.values():
        lines.append("-- relaxed_order returns rows slightly out of order: sort them again, out of a materialized CTE")
    return "\n".join(lines)
