"""A table of tenants' texts with vectors of 3072 dimensions, as large as wanted and alike in every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import psycopg

from pgconform.vectors import oracle

DIMENSION, CLUSTERS = 3072, 12
SHARES = (0.55, 0.19, 0.11, 0.07, 0.05, 0.02, 0.01)  # of the reference database's tenants
_TABLE = "create extension vector; create table texts (id bigint primary key, tenant int, embedding vector(3072))"


def rows(count: int) -> Iterator[bytes]:
    """The table in binary COPY: unit vectors around some centres."""
    draw = numpy.random.default_rng(1)
    centres = draw.normal(size=(CLUSTERS, DIMENSION)).astype(numpy.float32)
    tenants = draw.choice(len(SHARES), count, p=SHARES)
    head = numpy.array([DIMENSION, 0], ">i2").tobytes()
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for n in range(count):
        vector = centres[n % CLUSTERS] + draw.standard_normal(DIMENSION, numpy.float32)
        vector /= numpy.linalg.norm(vector)
        body = head + vector.astype(">f4").tobytes()
        yield b"".join((
            b"\0\3\0\0\0\x08", n.to_bytes(8), b"\0\0\0\4", int(tenants[n]).to_bytes(4), len(body).to_bytes(4), body,
        ))  # fmt: skip
    yield b"\xff\xff"


def fill(connection: psycopg.Connection[Any], count: int) -> None:
    connection.execute(_TABLE)
    with connection.cursor() as cursor, cursor.copy("copy texts from stdin (format binary)") as copy:
        for piece in rows(count):
            copy.write(piece)
    connection.execute("vacuum analyze texts")


def drawn(count: int) -> oracle.Matrix:
    """Queries that no row has, drawn as the rows are."""
    draw = numpy.random.default_rng(1)
    centres = draw.normal(size=(CLUSTERS, DIMENSION))
    noise = numpy.random.default_rng(2).normal(size=(count, DIMENSION))
    queries = centres[numpy.arange(count) % CLUSTERS] + noise
    queries /= numpy.linalg.norm(queries, axis=1, keepdims=True)
    return numpy.asarray(queries, numpy.float32)
