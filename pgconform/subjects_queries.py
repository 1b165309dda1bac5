"""Searches that the contract declares: by functions, and by queries that applications send."""

from __future__ import annotations

from collections.abc import Iterator

from pgconform.contract import ArgumentPromise, Contract, FunctionPromise
from pgconform.contract_vectors import Search
from pgconform.names import qualified, split
from pgconform.parameters import named
from pgconform.subjects import Searching, searches


def all_searches(contract: Contract) -> Iterator[Searching]:
    """Declared search functions and queries."""
    yield from searches(contract)
    extension = contract.extensions.get("vector")
    for name, query in contract.queries.items():
        schema, table, column = split(query.vector)
        relation, told = qualified(schema, table), named(query.sql)
        vector = contract.tables[relation].vectors[column]
        search = Search(
            query.vector, "query", "", "count" if "count" in told else "", "tenant" if "tenant" in told else "", {},
            query.filters, query.where, query.default_threshold, query.default_count, query.key, query.table_key,
            query.similarity, query.recall, query.latency_ms, query.index_from,
        )  # fmt: skip
        promise = FunctionPromise(
            tuple(ArgumentPromise(word, vector.type if word == "query" else "text") for word in told),
            execute=query.execute, search=search,
            definition=f"-- correct the query {name} in the application, and in the contract",
        )  # fmt: skip
        where = (extension.schema if extension else "") or "public"
        yield Searching(name, promise, relation, column, vector, query.sql, where, contract.tables[relation].visible)
