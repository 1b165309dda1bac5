"""Vectors out of PostgreSQL's binary COPY, decoded into one block of memory that is used again and again.

The rows are those of ``question``: key as text, bit mask of the groups that own the row, vector. Their form on the wire
is that of pgvector's send functions: vector and halfvec begin with int16 dimension and int16 unused; sparsevec with
int32 dimension, number of elements and unused, then the indices, then the values; bit with the int32 length, as
PostgreSQL's varbit_send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy

from pgconform.statements import Name, Statement, column, joined, statement

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 12_000_000  # of vectors in memory at once, beside what BLAS takes
GROUPS = 62  # that the mask, a signed int8, has bits for
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_EXTENSION, _FIELDS, _MASK, _LENGTH = Struct(">i"), Struct(">hi"), Struct(">iqi"), Struct(">i")
_DENSE, _SPARSE = Struct(">H"), Struct(">iii")


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows: keys as text, which group owns each (rows x groups), vectors (rows x dimension, float32).

    The arrays are views that the next block overwrites.
    """

    keys: list[str]
    owned: NDArray[numpy.bool_]
    vectors: NDArray[numpy.float32]


def question(table: str, key: str, vector: str, groups: Sequence[Statement], where: Statement) -> Statement:
    """The rows ``r`` of a relation that ``where`` holds for, in the form that ``blocks`` reads; each group's condition
    must not be null. Raises ValueError for more than 62 groups."""
    if len(groups) > GROUPS:
        raise ValueError(f"rows can be told apart for {GROUPS} groups at once, not for {len(groups)}")
    bits = [statement("(({g})::int::bigint << {n}::int)", g=group, n=n) for n, group in enumerate(groups)]
    return statement(
        "select {key}::text, ({mask})::bigint, {vector} from {table} as r where {vector} is not null and {where}",
        key=column(key), mask=joined(bits, " | "), vector=column(vector), table=Name.of(table), where=where,
    )  # fmt: skip


def blocks(messages: Iterable[Any], kind: str, dimension: int, groups: int) -> Iterator[Block]:
    """The rows of a binary COPY, block by block; ``kind`` is vector, halfvec, sparsevec or bit.

    Vectors of another dimension cannot be compared and are left out. Raises ValueError for what is no such COPY.
    """
    size = max(1, BLOCK_BYTES // (4 * dimension))
    vectors = numpy.empty((size, dimension), numpy.float32)
    masks = numpy.empty(size, numpy.int64)
    bits = numpy.arange(groups)
    decode = _DECODERS[kind]
    keys: list[str] = []
    for message, position in _rows(messages):
        fields, length = _FIELDS.unpack_from(message, position)
        if fields != 3:
            raise ValueError(f"a row of the COPY has {fields} fields, not 3")
        end = position + 6 + max(0, length)
        filled = len(keys)
        _, masks[filled], _ = _MASK.unpack_from(message, end)
        if decode(message, end + 16, vectors[filled]):
            keys.append(str(message[position + 6 : end], "utf-8", "backslashreplace"))
        if len(keys) == size:
            yield Block(keys, (masks[:, None] >> bits & 1).astype(bool), vectors)
            keys = []
    if keys:
        left = len(keys)
        yield Block(keys, (masks[:left, None] >> bits & 1).astype(bool), vectors[:left])


def _rows(messages: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """Each row's message and where the row begins in it: the server sends one row a message, the header with the
    first, and -1 as number of fields at the end."""
    started = False
    for message in messages:
        position = 0
        if not started:
            if bytes(message[:11]) != _SIGNATURE:
                raise ValueError("not a binary COPY")
            position = 19 + _EXTENSION.unpack_from(message, 15)[0]
            started = True
        if len(message) > position + 2:
            yield message, position


def _dense(code: str) -> Any:
    kind = numpy.dtype(code)

    def decode(message: Any, position: int, into: NDArray[numpy.float32]) -> bool:
        if _DENSE.unpack_from(message, position)[0] != len(into):
            return False
        into[:] = numpy.frombuffer(message, kind, len(into), position + 4)
        return True

    return decode


def _sparse(message: Any, position: int, into: NDArray[numpy.float32]) -> bool:
    dimension, count, _ = _SPARSE.unpack_from(message, position)
    if dimension != len(into):
        return False
    into[:] = 0
    indices = numpy.frombuffer(message, ">i4", count, position + 12)
    into[indices] = numpy.frombuffer(message, ">f4", count, position + 12 + 4 * count)
    return True


def _bits(message: Any, position: int, into: NDArray[numpy.float32]) -> bool:
    (length,) = _LENGTH.unpack_from(message, position)
    if length != len(into):
        return False
    packed = numpy.frombuffer(message, numpy.uint8, (length + 7) // 8, position + 4)
    into[:] = numpy.unpackbits(packed, count=length)
    return True


_DECODERS = {"vector": _dense(">f4"), "halfvec": _dense(">f2"), "sparsevec": _sparse, "bit": _bits}
