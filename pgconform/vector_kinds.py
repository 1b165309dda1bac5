"""What pgvector can compare and index: facts alone, as its README has them; it never talks to a server."""

from __future__ import annotations

from typing import NamedTuple

GRAPH, BOTH = ("hnsw",), ("hnsw", "ivfflat")


class Kind(NamedTuple):
    """How vectors of one type are compared by one metric: the operator of the distance, the operator class that an
    index needs, and the index methods that have it."""

    operator: str
    operator_class: str
    methods: tuple[str, ...]


# By type and metric. What is not here does not exist.
KINDS = {
    ("vector", "cosine"): Kind("<=>", "vector_cosine_ops", BOTH),
    ("vector", "ip"): Kind("<#>", "vector_ip_ops", BOTH),
    ("vector", "l2"): Kind("<->", "vector_l2_ops", BOTH),
    ("vector", "l1"): Kind("<+>", "vector_l1_ops", GRAPH),
    ("halfvec", "cosine"): Kind("<=>", "halfvec_cosine_ops", BOTH),
    ("halfvec", "ip"): Kind("<#>", "halfvec_ip_ops", BOTH),
    ("halfvec", "l2"): Kind("<->", "halfvec_l2_ops", BOTH),
    ("halfvec", "l1"): Kind("<+>", "halfvec_l1_ops", GRAPH),
    ("sparsevec", "cosine"): Kind("<=>", "sparsevec_cosine_ops", GRAPH),
    ("sparsevec", "ip"): Kind("<#>", "sparsevec_ip_ops", GRAPH),
    ("sparsevec", "l2"): Kind("<->", "sparsevec_l2_ops", GRAPH),
    ("sparsevec", "l1"): Kind("<+>", "sparsevec_l1_ops", GRAPH),
    ("bit", "hamming"): Kind("<~>", "bit_hamming_ops", BOTH),
    ("bit", "jaccard"): Kind("<%>", "bit_jaccard_ops", GRAPH),
}
BIT = 1560  # the OID of PostgreSQL's own bit type (pg_type.dat)
# Dimensions that an index can take; of sparsevec, components that are not zero.
INDEXABLE = {"vector": 2000, "halfvec": 4000, "bit": 64_000, "sparsevec": 1000}
# A similarity under which nothing is, for metrics whose distances have a bound: of others, far away.
_LEAST, _FAR = {"cosine": -1.0, "jaccard": -1.0}, -1e9


def metrics(kind: str) -> list[str]:
    """The metrics by which vectors of a type can be compared."""
    return [metric for of, metric in KINDS if of == kind]


def by_operator_class(name: str) -> tuple[str, str] | None:
    """Type and metric of an operator class, its schema left out; None for one that is not pgvector's."""
    plain = name.rpartition(".")[2]
    return next((key for key, kind in KINDS.items() if kind.operator_class == plain), None)


def least_similarity(metric: str) -> float:
    """A threshold that lets all rows through: similarity is 1 - distance."""
    return _LEAST.get(metric, _FAR)


def alike(kind: str, declared: str) -> bool:
    """True where vectors of a type can be compared as those of the declared one are: bits never with others."""
    return bool(kind) and (kind == "bit") == (declared == "bit")


def home(kind: str, extension: str) -> str:
    """The schema of a type and its functions, where pgvector is in ``extension``: bit is PostgreSQL's own."""
    return "pg_catalog" if kind == "bit" else extension
