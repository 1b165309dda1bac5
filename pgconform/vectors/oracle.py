"""The exact answer to many vector searches at once, for several groups of rows, in one pass. Pure functions.

Distances are pgvector's: cosine is 1 - similarity, ip the negative inner product. A block's distances to all queries
come from one matrix product in single precision, which only chooses: those that may be among the nearest are computed
again in double precision. What single precision loses grows with the vectors, so margins are shares of a magnitude: of
the product of both norms for ip, of their sum for l2 and l1, of 1 for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgconform.vectors.copied import Block

    Matrix = NDArray[numpy.floating[Any]]

PAIRS = 256  # pairs of vectors in double precision at once: 12 MB of 3072 dimensions
SINGLE = 2e-6  # what single precision may be wrong by, in magnitudes
WIDE = 8  # times as many rows as are wanted are looked at again: of more that single precision cannot tell apart, some


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each group and query the nearest rows: distances (groups x queries x count; inf where there are fewer), keys
    ('' there), how many rows were nearer than the limit for certain, and the largest magnitude among the nearest
    (groups x queries; 0.0 where there are none)."""

    distances: NDArray[numpy.float64]
    keys: NDArray[numpy.object_]
    qualifying: NDArray[numpy.int64]
    magnitudes: NDArray[numpy.float64]


def tolerance(dimension: int, half: bool) -> float:
    """By how much a distance may differ from the exact one without a fault, in magnitudes.

    A component of a halfvec is rounded by up to 2**-11 of itself; over ``dimension`` independent components that sums
    up to a standard deviation of about 2**-11 / sqrt(dimension); four of them.
    """
    return SINGLE + (4 * 2.0**-11 / dimension**0.5 if half else 0.0)


def nearest(
    blocks: Iterable[Block], queries: Matrix, count: int, metric: str, groups: int, within: float | None = None,
    margin: float = SINGLE,
) -> Nearest:  # fmt: skip
    """The ``count`` nearest rows of each group to each query, of those nearer than ``within`` where it is given.

    ``margin`` is how much nearer a row must be to qualify for certain, in magnitudes. Memory: one block, its distances
    and the result. Raises KeyError for an unknown metric.
    """
    asked = numpy.ascontiguousarray(queries, numpy.float32)
    limit = numpy.inf if within is None else within
    best = [_Best(numpy.full((len(asked), count), numpy.inf), numpy.full((len(asked), count), "", object),
                  numpy.zeros((len(asked), count))) for _ in range(groups)]  # fmt: skip
    qualifying = numpy.zeros((groups, len(asked)), numpy.int64)
    for block in blocks:
        names = numpy.array(block.keys, object)
        rough = _BY_BLOCK[metric](asked, block.vectors)
        numpy.copyto(rough, numpy.inf, where=numpy.isnan(rough))  # a zero vector is near nothing
        sizes = _magnitudes(asked, block.vectors, metric)
        certain = rough + SINGLE * _level(sizes, metric) < _level(limit - margin * sizes, metric)
        for group in range(groups):
            rows = numpy.flatnonzero(block.owned[:, group])
            if len(rows):
                qualifying[group] += certain[:, rows].sum(axis=1)
                near = _candidates(rough[:, rows], sizes[:, rows], metric, limit, best[group])
                _merge(near, rows, block.vectors, names, sizes, asked, metric, limit, best[group])
    return Nearest(
        numpy.stack([one.distances for one in best]), numpy.stack([one.keys for one in best]), qualifying,
        numpy.stack([one.magnitudes.max(axis=1) for one in best]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Best:
    """The nearest rows of one group so far (queries x count)."""

    distances: NDArray[numpy.float64]
    keys: NDArray[numpy.object_]
    magnitudes: NDArray[numpy.float64]


def _candidates(
    rough: Matrix, sizes: Matrix, metric: str, limit: float, best: _Best
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Queries and rows of a block that may be among the nearest, so far as single precision can tell."""
    count = best.distances.shape[1]
    few = min(rough.shape[1], WIDE * count)
    chosen = numpy.argpartition(rough, few - 1, axis=1)[:, :few]
    near = numpy.take_along_axis(rough, chosen, axis=1)
    enough = _level(numpy.minimum(best.distances[:, -1:], limit), metric)
    if few > count:
        enough = numpy.minimum(enough, numpy.partition(near, count - 1, axis=1)[:, count - 1 : count])
    wrong = SINGLE * _level(numpy.take_along_axis(sizes, chosen, axis=1).max(axis=1, keepdims=True), metric)
    queries, place = numpy.nonzero(near < enough + 2 * wrong)
    return queries, chosen[queries, place]


def _merge(
    near: tuple[NDArray[Any], NDArray[Any]], rows: NDArray[Any], vectors: Matrix, names: NDArray[Any], sizes: Matrix,
    asked: Matrix, metric: str, limit: float, best: _Best,
) -> None:  # fmt: skip
    """Takes the candidates that are nearer than the limit into the best, in place."""
    queries, picked = near[0], rows[near[1]]
    if not len(queries):
        return
    exact = pairwise(asked, queries, vectors, picked, metric)
    count = best.distances.shape[1]
    # Candidates come query by query: each is put beside the best of its query, in a column of its own.
    place = numpy.arange(len(queries)) - numpy.searchsorted(queries, queries)
    shape, column = (len(asked), count + int(place.max()) + 1), count + place
    found, called, large = numpy.full(shape, numpy.inf), numpy.full(shape, "", object), numpy.zeros(shape)
    found[:, :count], called[:, :count], large[:, :count] = best.distances, best.keys, best.magnitudes
    found[queries, column] = numpy.where(exact < limit, exact, numpy.inf)
    called[queries, column] = names[picked]
    large[queries, column] = sizes[queries, picked]
    order = numpy.argsort(found, axis=1, kind="stable")[:, :count]
    best.distances[:] = numpy.take_along_axis(found, order, axis=1)
    there = numpy.isfinite(best.distances)
    best.keys[:] = numpy.where(there, numpy.take_along_axis(called, order, axis=1), "")
    best.magnitudes[:] = numpy.where(there, numpy.take_along_axis(large, order, axis=1), 0.0)


def pairwise(
    left: Matrix, lefts: Sequence[int] | NDArray[Any], right: Matrix, rights: Sequence[int] | NDArray[Any], metric: str
) -> NDArray[numpy.float64]:
    """The distance of each pair of rows ``left[lefts[i]]``, ``right[rights[i]]``, in double precision; inf where it is
    undefined. Raises KeyError for an unknown metric."""
    found = numpy.empty(len(lefts))
    for start in range(0, len(lefts), PAIRS):
        part = slice(start, start + PAIRS)
        a, b = left[list(lefts[part])].astype(float), right[list(rights[part])].astype(float)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            found[part] = _BY_PAIR[metric](a, b)
    return numpy.where(numpy.isnan(found), numpy.inf, found)


def magnitude(
    left: Matrix, lefts: Sequence[int] | NDArray[Any], right: Matrix, rights: Sequence[int] | NDArray[Any], metric: str
) -> NDArray[numpy.float64]:
    """What the errors of each pair's distance are a share of."""
    if metric not in _NORMS:
        return numpy.ones(len(lefts))
    norm, combined = _NORMS[metric]
    return numpy.asarray(combined(norm(left)[list(lefts)], norm(right)[list(rights)]), numpy.float64)


def recall(returned: Sequence[float], exact: Matrix, within: float) -> float:
    """The share of the exact nearest that was found: distances of the rows returned against the exact ones, nearest
    first. A row as near as the last exact one, by ``within``, counts as found; 1.0 where nothing is to be found."""
    wanted = exact[numpy.isfinite(exact)]
    if not len(wanted):
        return 1.0
    hits = sum(1 for distance in returned if distance <= wanted[-1] + within)
    return min(hits, len(wanted)) / len(wanted)


# -- magnitudes: the norm of each vector, and what is made of two ------------------------------------------------


def _norm(vectors: Matrix) -> Matrix:
    return numpy.asarray(numpy.sqrt(numpy.einsum("ij,ij->i", vectors, vectors)))


_NORMS: dict[str, tuple[Callable[[Matrix], Matrix], Any]] = {
    "ip": (_norm, numpy.multiply), "l2": (_norm, numpy.add),
    "l1": (lambda vectors: numpy.asarray(numpy.abs(vectors).sum(axis=1)), numpy.add),
}  # fmt: skip


def _magnitudes(queries: Matrix, vectors: Matrix, metric: str) -> Matrix:
    """Of all pairs (queries x rows)."""
    if metric not in _NORMS:
        return numpy.ones((len(queries), len(vectors)), numpy.float32)
    norm, combined = _NORMS[metric]
    return numpy.asarray(combined.outer(norm(queries), norm(vectors)))


def _level(distance: Any, metric: str) -> Any:
    """A distance as ``_BY_BLOCK`` gives it: squared for l2, whose small distances would lose their digits in a root."""
    return numpy.square(numpy.maximum(distance, 0)) if metric == "l2" else distance


# -- distances --------------------------------------------------------------------------------------------------


def _cosine(queries: Matrix, vectors: Matrix) -> Matrix:
    with numpy.errstate(invalid="ignore", divide="ignore"):
        found = queries @ vectors.T
        found /= numpy.sqrt(numpy.einsum("ij,ij->i", queries, queries))[:, None]
        found /= numpy.sqrt(numpy.einsum("ij,ij->i", vectors, vectors))
    return numpy.subtract(1, found, out=found)


def _inner(queries: Matrix, vectors: Matrix) -> Matrix:
    found = queries @ vectors.T
    return numpy.negative(found, out=found)


def _squared(queries: Matrix, vectors: Matrix) -> Matrix:
    found = queries @ vectors.T
    found *= -2
    found += numpy.einsum("ij,ij->i", queries, queries)[:, None]
    found += numpy.einsum("ij,ij->i", vectors, vectors)
    return numpy.maximum(found, 0, out=found)


def _manhattan(queries: Matrix, vectors: Matrix) -> Matrix:
    return numpy.stack([numpy.abs(vectors - query).sum(axis=1) for query in queries])


def _hamming(queries: Matrix, vectors: Matrix) -> Matrix:
    found = queries @ vectors.T
    found *= -2
    found += queries.sum(axis=1)[:, None]
    found += vectors.sum(axis=1)
    return found


def _jaccard(queries: Matrix, vectors: Matrix) -> Matrix:
    shared = queries @ vectors.T
    either = queries.sum(axis=1)[:, None] + vectors.sum(axis=1) - shared
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(shared == 0, numpy.float32(1), 1 - shared / either)


_BY_BLOCK: dict[str, Callable[[Matrix, Matrix], Matrix]] = {
    "cosine": _cosine, "ip": _inner, "l2": _squared, "l1": _manhattan, "hamming": _hamming, "jaccard": _jaccard,
}  # fmt: skip
_BY_PAIR: dict[str, Callable[[Matrix, Matrix], Matrix]] = {
    "cosine": lambda a, b: 1 - (a * b).sum(1) / numpy.sqrt((a * a).sum(1) * (b * b).sum(1)),
    "ip": lambda a, b: -(a * b).sum(1),
    "l2": lambda a, b: numpy.sqrt(((a - b) ** 2).sum(1)),
    "l1": lambda a, b: numpy.abs(a - b).sum(1),
    "hamming": lambda a, b: numpy.abs(a - b).sum(1),
    "jaccard": lambda a, b: 1 - (a * b).sum(1) / numpy.maximum(1, numpy.maximum(a, b).sum(1)),
}  # fmt: skip
