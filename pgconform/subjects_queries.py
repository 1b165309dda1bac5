"""Searches that the contract declares: by functions, and by queries that applications send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgconform.contract import ArgumentPromise, Contract, FunctionPromise
from pgconform.contract_vectors import Search, Searched
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
        count, tenant = (word if word in told else "" for word in ("count", "tenant"))
        alike: dict[str, Any] = {field: getattr(query, field) for field in Searched.__struct_fields__}
        given = query.default_count
        search = Search(query.vector, "query", count=count, tenant=tenant, default_count=given, **alike)
        promise = FunctionPromise(
            tuple(ArgumentPromise(word, vector.type if word == "query" else "text") for word in told),
            execute=query.execute, search=search,
            definition=f"-- correct the query {name} in the application, and in the contract",
        )  # fmt: skip
        where = (extension.schema if extension else "") or "public"
        yield Searching(name, promise, relation, column, vector, query.sql, where, contract.tables[relation].visible)
