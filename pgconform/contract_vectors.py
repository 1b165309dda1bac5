"""The contract's sections about embedding columns."""

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
