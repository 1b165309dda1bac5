"""Recall against time over the settings of a vector index, and the cheapest setting that is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from pgconform.model import NotVerified
from pgconform.probes.searching import INDEX_ONLY
from pgconform.vectors.measuring import Tried

if TYPE_CHECKING:
    from pgconform.vectors.measuring import Measuring

QUERIES = 20  # of those given, for each point and caller
ALIKE = 1.1  # numbers of pages that differ by less are the same
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
    def unordered(self) -> int:
        """Queries of all callers whose rows are not nearest first."""
        return sum(one.unordered for one in self.tried.values())

    @property
    def pages(self) -> float:
        """Pages that one search reads, for the caller who has to read most."""
        return max(one.pages for one in self.tried.values())

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


def curve(measuring: Measuring, own: bool = False) -> list[Point]:
    """A point for each setting of each method that has an index, by the search that the contract implies, or by the
    function or query itself where ``own``; the index is what is measured, so the planner is kept on it. Empty without
    one. Raises NotVerified."""
    indexes = measuring.indexes()
    version = measuring.evidence.catalog.extension("vector")
    iterative = version is not None and tuple(map(int, version.version.split(".")[:2])) >= (0, 8)
    lists = max((int(i.options.get("lists", LISTS)) for i in indexes if i.method == "ivfflat"), default=LISTS)
    methods = dict.fromkeys(index.method for index in indexes)
    return [point(measuring, chosen, own) for method in methods for chosen in settings(method, lists, iterative)]


def point(
    measuring: Measuring, chosen: Mapping[str, str], own: bool = False, kept: Mapping[str, str] = INDEX_ONLY
) -> Point:
    """Recall and cost under one setting; of the function or query itself where ``own``."""
    found = {
        case.name: measuring.tried(n, {**kept, **chosen}, QUERIES, own)
        for n, case in enumerate(measuring.cases)
        if case.rows
    }
    if not found:
        raise NotVerified(f"no caller of {measuring.search.function} owns a row")
    return Point(dict(chosen), found)


def good(points: list[Point], recall: float) -> Iterator[Point]:
    """Those that give every caller all rows in order and the recall, and scan the index, without which settings mean
    nothing. First those that have the caller who reads most read fewest pages, which no other work on the machine
    changes; of about as many, the first."""
    left = [p for p in points if p.least >= recall and not p.short and not p.unordered and p.scanning]
    while left:
        fewest = min(point.pages for point in left)
        first = next(point for point in left if point.pages <= ALIKE * fewest)
        left.remove(first)
        yield first
