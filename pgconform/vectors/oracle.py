"""The exact answer to many vector searches at once, for several groups of rows, in one pass. Pure functions.

Distances are pgvector's: cosine is 1 - similarity, ip the negative inner product. A block's distances to all queries
come from one matrix product in single precision. Of l2 that loses the digits of small distances, since squares of norms
are subtracted; there, those that enter the nearest are computed again, from the differences.
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
SINGLE = 2e-6  # what single precision may be wrong by, in distances of the order of 1


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each group and query the nearest rows: distances (groups x queries x count; inf where there are fewer), keys
    ('' there), and how many rows were nearer than the limit for certain (groups x queries)."""

    distances: NDArray[numpy.float64]
    keys: NDArray[numpy.object_]
    qualifying: NDArray[numpy.int64]


def tolerance(dimension: int, half: bool) -> float:
    """By how much a distance between unit vectors may differ from the exact one without a fault.

    A component of a halfvec is rounded by up to 2**-11 of itself; over ``dimension`` independent components that sums
    up to a standard deviation of about 2**-11 / sqrt(dimension); four of them.
    """
    return SINGLE + (4 * 2.0**-11 / dimension**0.5 if half else 0.0)


def nearest(
    blocks: Iterable[Block], queries: Matrix, count: int, metric: str, groups: int, within: float | None = None,
    margin: float = SINGLE,
) -> Nearest:  # fmt: skip
    """The ``count`` nearest rows of each group to each query, of those nearer than ``within`` where it is given.

    ``margin`` is how much nearer a row must be to qualify for certain. Memory: one block, its distances and the result.
    Raises KeyError for an unknown metric.
    """
    asked = numpy.ascontiguousarray(queries, numpy.float32)
    best = numpy.full((groups, len(asked), count), numpy.inf)
    keys = numpy.full((groups, len(asked), count), "", object)
    qualifying = numpy.zeros((groups, len(asked)), numpy.int64)
    for block in blocks:
        names = numpy.array(block.keys, object)
        found = _BY_BLOCK[metric](asked, block.vectors)
        numpy.copyto(found, numpy.inf, where=numpy.isnan(found))  # a zero vector is near nothing
        for group in range(groups):
            rows = numpy.flatnonzero(block.owned[:, group])
            if not len(rows):
                continue
            own = found if len(rows) == len(names) else found[:, rows]
            limit = numpy.inf if within is None else within
            qualifying[group] += (own < limit - margin).sum(axis=1)
            _merge(own, rows, block.vectors, names, asked, metric, limit, best[group], keys[group])
    return Nearest(best, keys, qualifying)


def _merge(
    own: Matrix, rows: NDArray[Any], vectors: Matrix, names: NDArray[Any], asked: Matrix, metric: str, limit: float,
    best: Matrix, keys: NDArray[Any],
) -> None:  # fmt: skip
    """Takes those of a block that are nearer than the farthest of the best so far into the best, in place."""
    count = best.shape[1]
    if own.shape[1] > count:
        chosen = numpy.argpartition(own, count - 1, axis=1)[:, :count]
        near = numpy.take_along_axis(own, chosen, axis=1)
    else:
        chosen, near = numpy.broadcast_to(numpy.arange(own.shape[1]), own.shape), own
    entering, place = numpy.nonzero(near < numpy.minimum(best[:, -1:] + SINGLE, limit + SINGLE))
    if not len(entering):
        return
    picked = rows[chosen[entering, place]]
    again = metric == "l2"
    exact = pairwise(asked, entering, vectors, picked, metric) if again else near[entering, place]
    fresh = numpy.full(near.shape, numpy.inf)
    fresh[entering, place] = numpy.where(exact < limit, exact, numpy.inf)
    named = numpy.full(near.shape, "", object)
    named[entering, place] = names[picked]
    both, called = numpy.concatenate([best, fresh], axis=1), numpy.concatenate([keys, named], axis=1)
    order = numpy.argsort(both, axis=1, kind="stable")[:, :count]
    best[:] = numpy.take_along_axis(both, order, axis=1)
    keys[:] = numpy.where(numpy.isinf(best), "", numpy.take_along_axis(called, order, axis=1))


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


def recall(returned: Sequence[float], exact: Matrix, within: float) -> float:
    """The share of the exact nearest that was found: distances of the rows returned against the exact ones, nearest
    first. A row as near as the last exact one, by ``within``, counts as found; 1.0 where nothing is to be found."""
    wanted = exact[numpy.isfinite(exact)]
    if not len(wanted):
        return 1.0
    hits = sum(1 for distance in returned if distance <= wanted[-1] + within)
    return min(hits, len(wanted)) / len(wanted)


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


def _euclidean(queries: Matrix, vectors: Matrix) -> Matrix:
    found = queries @ vectors.T
    found *= -2
    found += numpy.einsum("ij,ij->i", queries, queries)[:, None]
    found += numpy.einsum("ij,ij->i", vectors, vectors)
    return numpy.sqrt(numpy.maximum(found, 0, out=found), out=found)


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
    "cosine": _cosine, "ip": _inner, "l2": _euclidean, "l1": _manhattan, "hamming": _hamming, "jaccard": _jaccard,
}  # fmt: skip
_BY_PAIR: dict[str, Callable[[Matrix, Matrix], Matrix]] = {
    "cosine": lambda a, b: 1 - (a * b).sum(1) / numpy.sqrt((a * a).sum(1) * (b * b).sum(1)),
    "ip": lambda a, b: -(a * b).sum(1),
    "l2": lambda a, b: numpy.sqrt(((a - b) ** 2).sum(1)),
    "l1": lambda a, b: numpy.abs(a - b).sum(1),
    "hamming": lambda a, b: numpy.abs(a - b).sum(1),
    "jaccard": lambda a, b: 1 - (a * b).sum(1) / numpy.maximum(1, numpy.maximum(a, b).sum(1)),
}  # fmt: skip
