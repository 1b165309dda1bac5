"""The contract's sections about embedding columns, and the searches in them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pgconform.contract_section import Section, Share
from pgconform.vector_kinds import INDEXABLE, KINDS


class VectorIndex(Section, frozen=True):
    """The approximate index that must serve searches of the column; bounds are inclusive. ``cast`` is the type that it
    holds instead; ``bit``: the signs of the components (binary_quantize), by Hamming distance. ``recall`` is the share
    of the nearest rows that it finds when asked with all effort."""

    methods: tuple[Literal["hnsw", "ivfflat"], ...] = ("hnsw", "ivfflat")
    cast: Literal["", "vector", "halfvec", "bit"] = ""
    rows_per_list: tuple[float, float] = (1, 5000)
    m: tuple[int, int] = (8, 64)
    ef_construction: tuple[int, int] = (32, 1000)
    recall: Share = 0.95


class Vector(Section, frozen=True):
    """An embedding column. ``norm``: bounds of the Euclidean norm of every row's vector, of no matter for bits.
    ``queries`` is a file of vectors to search for that no row was made from, one a line, relative to the contract."""

    dimension: Annotated[int, Meta(ge=1)]
    type: Literal["vector", "halfvec", "sparsevec", "bit"] = "vector"
    metric: Literal["cosine", "l2", "ip", "l1", "hamming", "jaccard"] = "cosine"
    index: VectorIndex | None = msgspec.field(default_factory=VectorIndex)
    coverage: Share = 0.95
    norm: tuple[float, float] | None = (0.99, 1.01)
    distinct: bool = True
    queries: str = ""

    @property
    def index_cast(self) -> str:
        """The type that the indexed expression casts to, '' for the column as it is (see INDEXABLE)."""
        if self.index and self.index.cast and self.index.cast != self.type:
            return self.index.cast
        return "halfvec" if self.type == "vector" and self.dimension > INDEXABLE["vector"] else ""

    @property
    def indexed_as(self) -> tuple[str, str] | None:
        """Type and metric of what an index holds; None where there is no such index."""
        if self.index_cast == "bit":
            return ("bit", "hamming") if self.type in ("vector", "halfvec") else None
        held = (self.index_cast or self.type, self.metric)
        return held if held in KINDS else None


class Searched(Section, frozen=True, kw_only=True):
    """What is promised of a search, whoever sends it; ``Search`` says what each means."""

    filters: dict[str, str] = {}
    where: str = ""
    default_threshold: float | None = None
    key: str = "id"
    table_key: str = ""
    similarity: str = "similarity"
    recall: Share = 0.9
    latency_ms: Annotated[float, Meta(gt=0)] = 1000
    index_from: Annotated[int, Meta(ge=0)] = 10_000


class Search(Searched, frozen=True):
    """How the function searches: the vector column behind it, and the names of its arguments and results. Every call
    passes what is ``given`` to other arguments, and for ``filters`` (argument and column) a value that the caller's
    rows have; only rows ``where`` an SQL condition on the table's columns holds are found at all. ``table_key`` is what
    the table calls the results' ``key``, where that is another name. pgconform bench measures ``recall``, the mean
    share of the nearest rows that is found; ``latency_ms``, the 95th percentile, which fails at three times that; and
    from ``index_from`` rows on, that an approximate index is scanned."""

    vector: str
    query: str
    threshold: str = ""
    count: str = ""
    tenant: str = ""
    given: dict[str, str | int | float | bool] = {}
    default_count: int | None = None


class Query(Searched, frozen=True):
    """A search that an application sends as SQL of its own. ``sql`` returns ``key`` and ``similarity``, the nearest row
    first; ``:query`` in it is the vector, ``:tenant`` and ``:count`` the caller's tenant and how many rows are wanted,
    and so is each of ``filters``: all are bound as parameters. Without ``:count``, ``default_count`` says how many it
    returns; all are over the similarity ``default_threshold``. ``execute`` are the roles that send it."""

    sql: str
    vector: str
    execute: tuple[str, ...]
    default_count: Annotated[int, Meta(ge=1)] | None = None
