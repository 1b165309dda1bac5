"""Vector columns and the functions that search them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgconform import contract_vectors
from pgconform.catalog import Argument, Catalog, Column, Function, Index, Table
from pgconform.drafting import conditions
from pgconform.drafting.seen import Seen, mentions
from pgconform.expressions import ExpressionError, constant
from pgconform.model import NotVerified
from pgconform.names import quote
from pgconform.probes import vectors as stored_vectors
from pgconform.statements import Name, statement
from pgconform.vector_indexes import METHODS
from pgconform.vector_kinds import INDEXABLE, KINDS, by_operator_class, metrics

if TYPE_CHECKING:
    from pgconform.database import Database

_LIMIT = re.compile(r"count|limit|top|max|(^|_)(k|n)$|rows|number|size", re.I)
_THRESHOLD = re.compile(r"threshold|similarity|min|score|cutoff|distance", re.I)
_SCORE = re.compile(r"similarity|score|distance|rank|relevance", re.I)
_TENANT = re.compile(r"tenant|org|account|workspace|company|customer|shop|store|hotel|client", re.I)
_LONG_INDEX = 1000  # rows whose norm is looked at


@dataclass(frozen=True)
class Vector:
    """A vector column: what a contract says of it, and why. ``dimension`` is 0 where nothing tells it."""

    table: Table
    column: Column
    dimension: int
    item: dict[str, Any]
    why: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.table}.{quote(self.column.name)}"


def vectors(seen: Seen, table: Table, database: Database | None) -> list[Vector]:
    """The vector columns of a relation that stores rows; of bits, those that are searched."""
    kinds = {c: kind for c in table.columns if (kind := seen.catalog.comparable(c)) and table.stores_rows}
    return [
        _vector(seen, table, c, kind, database)
        for c, kind in kinds.items()
        if kind != "bit" or _indexes(table, c) or _asked(seen, table, kind, c.name)
    ]


def _indexes(table: Table, column: Column) -> list[Index]:
    return [i for i in table.indexes if i.method in METHODS and _over(i, column)]


def _vector(seen: Seen, table: Table, column: Column, kind: str, database: Database | None) -> Vector:
    why = []
    stored, unit = _stored(seen, table, column, kind, database)
    dimension = column.modifier if column.modifier > 0 else stored
    told = "its type" if column.modifier > 0 else "the stored values, the type does not hold it"
    why.append(f"dimension: by {told}" if dimension else "dimension: neither its type nor a stored value tells it")
    item: dict[str, Any] = {"dimension": dimension}
    if kind != "vector":
        item["type"] = kind
    indexes = _indexes(table, column)
    cast, metric = (by_operator_class(indexes[0].operator_classes[0]) if indexes else None) or ("", "")
    if (kind, metric) in KINDS:
        why.append(f"metric: by the operator class of {indexes[0].name}")
    else:
        metric = _asked(seen, table, kind)
        why.append(
            "metric: by the operator in a search function's body" if metric else "metric: a guess, no index says"
        )
    item["metric"] = metric = metric or metrics(kind)[0]
    promise: dict[str, Any] = {"cast": cast} if cast and cast != kind else {}
    for index in indexes[:1]:
        size = f"{table.rows:.0f} rows" if table.rows >= 0 else "rows never counted"
        options = ", ".join(f"{name} = {value}" for name, value in sorted(index.options.items())) or "no options"
        why.append(f"index: {index.method}, {options}, {size}")
        promise |= _bounds(index, table)
    if promise:
        item["index"] = promise
    elif kind != "sparsevec" and dimension > INDEXABLE[_held(dimension, kind, metric)]:
        item["index"] = False
        why.append("index: none takes so many dimensions")
    if kind == "bit":
        item["distinct"] = False
        why.append("distinct: guess: short codes may be alike")
    elif unit is not None and not unit:
        item["norm"] = False
        why.append("norm: stored vectors are not of length 1")
    return Vector(table, column, dimension, item, why)


def _bounds(index: Index, table: Table) -> dict[str, Any]:
    """What is outside a contract's usual bounds, widened to what is there."""
    found: dict[str, Any] = {}
    told = {name: int(value) for name, value in index.options.items() if value.isdigit()}
    for name, (low, high) in {"m": (8, 64), "ef_construction": (32, 1000)}.items():
        if name in told and not low <= told[name] <= high:
            found[name] = [min(low, told[name]), max(high, told[name])]
    if "lists" in told and table.rows > 0 and table.rows / max(told["lists"], 1) > 5000:
        found["rows_per_list"] = [1, round(table.rows / max(told["lists"], 1)) + 1]
    return found


def _over(index: Index, column: Column) -> bool:
    return index.columns[0] == column.name or (not index.columns[0] and _names(index.keys[0], column.name))


def _names(expression: str, column: str) -> bool:
    return bool(re.search(rf"(?<![\w$\"]){re.escape(quote(column))}(?![\w$\"])", expression))


def _held(dimension: int, kind: Any, metric: Any) -> str:
    """The type that an index of such a column holds."""
    held = contract_vectors.Vector(max(dimension, 1), kind, metric).indexed_as
    return held[0] if held else kind


def _asked(seen: Seen, table: Table, kind: str, name: str = "") -> str:
    """The metric by which some function compares vectors of that type, and names the table (and the column); '' for
    none."""
    for function in seen.catalog.functions:
        named = not name or _names(function.body, name)
        if not function.extension and function.body and mentions(function.body, table) and named:
            for metric in metrics(kind):
                if KINDS[kind, metric].operator in function.body:
                    return metric
    return ""


def _stored(seen: Seen, table: Table, column: Column, kind: str, database: Database | None) -> tuple[int, bool | None]:
    """Dimension of most stored values (0: none seen), and whether they are of length 1 (None: not known)."""
    if database is None:
        return 0, None
    schema, value = stored_vectors.extension_schema(seen.catalog), Name(("s", "v"))
    asked = statement(
        "select {dims} as d, pg_catalog.bool_and({norm} between 0.99 and 1.01) from"
        " (select {vector} as v from {table} as r where {vector} is not null limit {most}) as s"
        " group by 1 order by pg_catalog.count(*) desc, 1 limit 1",
        dims=stored_vectors.dimension(kind, schema, value), norm=stored_vectors.norm(kind, schema, value),
        vector=Name(("r", column.name)), table=Name((table.schema, table.name)), most=_LONG_INDEX,
    )  # fmt: skip
    try:
        rows = database.rows(asked, f"the dimension of {table}.{quote(column.name)}")
    except NotVerified:
        return 0, None
    return (int(rows[0][0]), bool(rows[0][1])) if rows else (0, None)


@dataclass(frozen=True)
class Search:
    """A search function's promise: the vector behind it and what its arguments mean, with the reasons."""

    item: dict[str, Any]
    why: str
    others: list[str]  # vectors that its body names, too
    unknown: list[str]  # arguments that must be given, and of which nothing tells what


def search(function: Function, known: list[Vector], tenants: set[str], catalog: Catalog) -> Search | None:
    """How the function searches, None where it takes no vector or returns no rows."""
    types = {kind for kind, _ in KINDS if kind != "bit"} | {v.item.get("type", "") for v in known}
    query = next((a for a in function.inputs if _base(a) in types), None)
    if query is None or not function.returns_set:
        return None
    behind = [v for v in known if mentions(function.body, v.table)]
    near = [v for v in behind if _names(function.body, v.column.name)] or behind
    vector = next(iter(near or known), None)
    count = _argument(function, ("integer", "bigint", "smallint"), _LIMIT)
    if vector is None or count is None:
        return None
    item: dict[str, Any] = {"vector": vector.name, "query": query.name}
    why = f"guess: its body names {vector.table}" if near else "guess: its body names no table that stores vectors"
    threshold = _argument(function, ("double precision", "real", "numeric"), _THRESHOLD)
    found = conditions.looks(function, vector.table, vector.column.name, catalog)
    told = {name for name, places in found.compared.items() if any(column in tenants for _, column in places)}
    rest = [a for a in function.inputs if a not in (query, threshold, count)]
    tenant = next((a for a in rest if a.name in told), None) or next(
        (a for a in rest if a.name in tenants or any(_same_stem(a.name, t) for t in tenants)), None
    )
    for key, argument in (("threshold", threshold), ("count", count), ("tenant", tenant)):
        if argument is not None:
            item[key] = argument.name
    for key, argument in (("default_threshold", threshold), ("default_count", count)):
        if argument is not None and (number := _number(argument.default)) is not None:
            item[key] = float(number) if key == "default_threshold" else int(number)
    required = [a.name for a in rest if a.default is None and a is not tenant]
    if filtered := conditions.filters(found, required):
        item["filters"] = filtered
    if found.where:
        item["where"] = found.where
    results = [a.name for a in function.arguments if a.mode in "ot"]
    if results and "id" not in results and (keys := [n for n in results if n.endswith("id")]):
        item["key"] = keys[0]
    key = item.get("key", "id")
    if vector.table.column(key) is None and len(vector.table.primary_key) == 1:
        item["table_key"] = vector.table.primary_key[0]
    if results and "similarity" not in results and (scores := [n for n in results if _SCORE.search(n)]):
        item["similarity"] = scores[0]
    return Search(item, why, [other.name for other in near[1:]], [name for name in required if name not in filtered])


def _same_stem(argument: str, column: str) -> bool:
    plain = re.sub(r"^(p|in|arg|filter|match|query)?_+|_(filter|param|arg|in)$", "", argument.lower())
    stem = re.sub(r"_?id$", "", column.lower())
    return plain in (column.lower(), stem) or (bool(_TENANT.search(plain)) and plain in column.lower())


def _base(argument: Argument) -> str:
    return argument.type.partition("(")[0].rpartition(".")[2].strip('"')


def _argument(function: Function, types: tuple[str, ...], pattern: re.Pattern[str]) -> Argument | None:
    """The argument of one of the types that is called so, else the only one of them."""
    fitting = [a for a in function.inputs if a.type in types and a.name]
    named = [a for a in fitting if pattern.search(a.name)]
    return named[0] if named else fitting[0] if len(fitting) == 1 else None


def _number(default: str | None) -> Any:
    try:
        found = constant(default)
    except ExpressionError:
        return None
    return None if isinstance(found, str | tuple | bool) else found
