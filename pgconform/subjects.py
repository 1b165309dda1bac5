"""What checks look at: the contract's promises one by one, and the catalogue's objects that a rule is about.

The first line of each docstring is what a report says was looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from pgconform.contract import (
    Allowed,
    Chunks,
    Complete,
    Contract,
    Filled,
    Flag,
    FunctionPromise,
    Reference,
    Report,
    Retention,
    TablePromise,
    Tenancy,
    Total,
)  # fmt: skip
from pgconform.contract_operations import Metrics
from pgconform.contract_vectors import Vector
from pgconform.model import Nothing
from pgconform.names import qualified, quote, split, type_name

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Function, Index, Sequence, Table
    from pgconform.privileges import Privileges

T = TypeVar("T")


class Declared(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One promise about a relation. ``needs`` lists what must exist before it can be judged."""

    table: str
    name: str
    item: T
    needs: tuple[tuple[str, tuple[str, ...]], ...]
    vector_column: tuple[str, str] | None = None  # a column that must be of a vector type, and the declared one

    def __str__(self) -> str:
        return f"{self.table}.{self.name}" if self.name else self.table


def declared(
    table: str, columns: Iterable[str], item: T, also: Iterable[tuple[str, tuple[str, ...]]] = (), name: str = ""
) -> Declared[T]:
    """The promise about those columns of a relation, which must exist, as others must."""
    wanted = tuple(columns)
    return Declared(table, name or ",".join(map(quote, wanted)), item, ((table, wanted), *also))


# -- the contract's promises ------------------------------------------------------------------------------------


def tables(contract: Contract) -> Iterator[Declared[TablePromise]]:
    """Relations that the contract declares."""
    return (Declared(name, "", promise, ()) for name, promise in contract.tables.items())


def present_tables(contract: Contract) -> Iterator[Declared[TablePromise]]:
    """Relations that the contract declares and that exist."""
    return (Declared(name, "", promise, ((name, ()),)) for name, promise in contract.tables.items())


def tenant_rows(contract: Contract) -> Iterator[Declared[Tenancy]]:
    """Declared relations whose rows name a tenant."""
    for name in contract.tenant_tables():
        promise = contract.tables[name]
        yield declared(name, [contract.column_of(name)], contract.tenancy_of(promise))


def vectors(contract: Contract) -> Iterator[Declared[Vector]]:
    """Declared vector columns."""
    for name, promise in contract.tables.items():
        for column, vector in promise.vectors.items():
            yield declared(name, [column], vector)


def stored_vectors(contract: Contract) -> Iterator[Declared[Vector]]:
    """Declared vector columns of a vector type."""
    return (msgspec.structs.replace(v, vector_column=(v.needs[0][1][0], v.item.type)) for v in vectors(contract))


def references(contract: Contract) -> Iterator[Declared[Reference]]:
    """Declared references from one relation to another."""
    for name, promise in contract.tables.items():
        for item in promise.references:
            yield declared(name, item.columns, item, [(item.table, item.to)])


def unique_keys(contract: Contract) -> Iterator[Declared[tuple[str, ...]]]:
    """Declared unique keys."""
    for name, promise in contract.tables.items():
        for key in promise.unique:
            yield declared(name, key, key)


def exclusive_columns(contract: Contract) -> Iterator[Declared[str]]:
    """Columns whose values must never appear under two tenants."""
    for name, promise in contract.tables.items():
        for column in promise.exclusive:
            tenant = contract.column_of(name)
            yield declared(name, [column, tenant], tenant, name=quote(column))


def distinct_columns(contract: Contract) -> Iterator[Declared[str]]:
    """Columns whose values must not repeat within a tenant."""
    for name, promise in contract.tables.items():
        for column in promise.distinct:
            tenant = contract.column_of(name)
            yield declared(name, [column, *filter(None, [tenant])], tenant, name=quote(column))


def time_columns(contract: Contract) -> Iterator[Declared[str]]:
    """Columns that hold a past time."""
    for name, promise in contract.tables.items():
        for column in promise.times:
            yield declared(name, [column], column)


def determined_columns(contract: Contract) -> Iterator[Declared[str]]:
    """Columns that are determined by a key within a tenant."""
    for name, promise in contract.tables.items():
        for key, column in promise.determines.items():
            tenant = contract.column_of(name)
            yield declared(name, [key, column, tenant], column, name=quote(key))


def chunked_tables(contract: Contract) -> Iterator[Declared[Chunks]]:
    """Declared relations whose rows are the chunks of a text."""
    for name, promise in contract.tables.items():
        if item := promise.chunks:
            yield declared(name, [*item.unit, item.number, item.total], item, name=quote(item.number))


def minimums(contract: Contract) -> Iterator[Declared[float]]:
    """Columns with a declared minimum."""
    for name, promise in contract.tables.items():
        for column, least in promise.minimum.items():
            yield declared(name, [column], least)


def value_sets(contract: Contract) -> Iterator[Declared[tuple[str, ...]]]:
    """Columns with a declared set of values."""
    for name, promise in contract.tables.items():
        for column, values in promise.values.items():
            yield declared(name, [column], values)


def filled_columns(contract: Contract) -> Iterator[Declared[Filled]]:
    """Columns with a declared minimum share of filled rows."""
    for name, promise in contract.tables.items():
        for item in promise.filled:
            yield declared(name, [item.column], item)


def allowed_values(contract: Contract) -> Iterator[Declared[Allowed]]:
    """Values that only listed rows may hold."""
    for name, promise in contract.tables.items():
        for item in promise.allowed:
            yield declared(name, [item.column, item.key], item, name=quote(item.column))


def flags(contract: Contract) -> Iterator[Declared[Flag]]:
    """Flags that say whether another column is filled."""
    for name, promise in contract.tables.items():
        for item in promise.flags:
            yield declared(name, [item.flag, item.column], item, name=quote(item.flag))


def retentions(contract: Contract) -> Iterator[Declared[Retention]]:
    """Declared relations whose old rows move to an archive."""
    for name, promise in contract.tables.items():
        if item := promise.retention:
            yield declared(name, [item.column], item)


def archives(contract: Contract) -> Iterator[Declared[Retention]]:
    """Declared archives."""
    for name, promise in contract.tables.items():
        if (item := promise.retention) and item.archive:
            yield declared(name, [item.key], item, [(item.archive, (item.key,))], name="archive")


def totals(contract: Contract) -> Iterator[Declared[Total]]:
    """Columns that are the total of another relation's rows."""
    for name, promise in contract.tables.items():
        for item in promise.totals:
            also = [(item.detail, (item.detail_column, item.detail_key))]
            yield declared(name, [item.column, item.key], item, also, name=quote(item.column))


def reports(contract: Contract) -> Iterator[Declared[Report]]:
    """Declared figures of reports."""
    for item in contract.reports:
        wanted = (*filter(None, [item.of]), *item.where)
        yield declared(item.relation, [item.column], item, [(item.table, wanted)])


def metrics(contract: Contract) -> Iterator[Declared[Metrics]]:
    """The table of the database's own measurements."""
    if item := contract.metrics:
        yield declared(item.table, [item.name, item.value, item.time], item, name=quote(item.name))


def tenancies(contract: Contract) -> Iterator[Declared[Tenancy]]:
    """Tenancies with a registry."""
    for name, item in contract.tenancies.items():
        if registry := item.registry:
            wanted = [registry.key, *filter(None, [registry.active, registry.created])]
            yield declared(registry.table, wanted, item, name=quote(name))


def memberships(contract: Contract) -> Iterator[Declared[Tenancy]]:
    """Tenancies with a table of members."""
    for item in contract.tenancies.values():
        if members := item.members:
            wanted = [members.user, members.tenant, *filter(None, [members.role, members.active, members.expires])]
            yield declared(members.table, wanted, item, name=quote(members.user))


def completeness(contract: Contract) -> Iterator[Declared[tuple[Tenancy, Complete]]]:
    """Tables in which every registered tenant has a row."""
    for item in contract.tenancies.values():
        for part in item.complete if item.registry else ():
            assert item.registry
            also = [(item.registry.table, (item.registry.key,))]
            yield declared(part.table, [part.column], (item, part), also)


def functions(contract: Contract) -> Iterator[tuple[str, FunctionPromise]]:
    """Functions that the contract declares."""
    yield from contract.functions.items()


@dataclass(frozen=True, slots=True)
class Searching:
    """A declared search function with the vector column behind it."""

    function: str
    promise: FunctionPromise
    table: str
    column: str
    vector: Vector
    sql: str = ""  # of a declared query, of which ``function`` is the name
    schema: str = ""  # of the vector types, where there is ``sql``
    visible: str = ""  # what the table says of rows that clients see

    @property
    def needs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        filtered = self.promise.search.filters.values() if self.promise.search else ()
        return ((self.table, (self.column, self.key, *filtered)),)

    @property
    def key(self) -> str:
        """The column of the table by which results name its rows."""
        return (self.promise.search.table_key or self.promise.search.key) if self.promise.search else ""

    @property
    def vector_column(self) -> tuple[str, str]:
        return self.column, self.vector.type

    def recreate(self, catalog: Catalog) -> str:
        """Drops whatever has the name and creates the function by the contract's definition."""
        return recreate(self.function, self.promise, *catalog.functions_named(self.function))

    def __str__(self) -> str:
        return self.function


def declared_overload(name: str, promise: FunctionPromise, catalog: Catalog) -> Function | None:
    """The function with the declared arguments: the same names and types in the same order; None without one."""
    wanted = [(a.name, type_name(a.type)) for a in promise.arguments]
    named = catalog.functions_named(name)
    return next((f for f in named if [(a.name, type_name(a.type)) for a in f.inputs] == wanted), None)


def present_overload(name: str, promise: FunctionPromise, catalog: Catalog) -> Function:
    """The function with the declared arguments. Raises Nothing where there is none: that is another check's finding."""
    if found := declared_overload(name, promise, catalog):
        return found
    raise Nothing(f"{name} with the declared arguments does not exist")


def promise_for(function: Function, catalog: Catalog, contract: Contract) -> FunctionPromise | None:
    """The promise that speaks for a function; for a twin of the declared one there is none."""
    promise = contract.functions.get(str(function))
    declared = declared_overload(str(function), promise, catalog) if promise else None
    return promise if declared in (None, function) else None


def recreate(name: str, promise: FunctionPromise, *gone: Function) -> str:
    """The contract's own definition, after drops of what stands in its way; nothing is dropped without one."""
    if not promise.definition:
        return f"-- make or correct {name}: the contract has no definition of it"
    drops = [f"drop {'procedure' if f.kind == 'p' else 'function'} {f.signature};\n" for f in gone]
    return "".join([*drops, promise.definition])


def searches(contract: Contract) -> Iterator[Searching]:
    """Declared search functions."""
    for name, promise in contract.functions.items():
        if promise.search:
            schema, table, column = split(promise.search.vector)
            relation = qualified(schema, table)
            of = contract.tables[relation]
            yield Searching(name, promise, relation, column, of.vectors[column], visible=of.visible)


# -- the catalogue's objects ------------------------------------------------------------------------------------


def the_database(catalog: Catalog) -> Iterator[str]:
    """The database as a whole."""
    yield catalog.server.database


def declared_name(catalog: Catalog, contract: Contract, table: Table) -> str:
    """The name by which the contract speaks of a relation: its own, or that of the table it is a partition of."""
    if (name := str(table)) in contract.tables:
        return name
    seen = catalog.table(table.parent) if table.parent else None
    while seen is not None:
        if str(seen) in contract.tables:
            return str(seen)
        seen = catalog.table(seen.parent) if seen.parent else None
    return ""


def promise_of(catalog: Catalog, contract: Contract, table: Table) -> TablePromise | None:
    """The promise that speaks for a relation: its own, or that of the table it is a partition of."""
    return contract.tables.get(declared_name(catalog, contract, table))


def application_tables(catalog: Catalog, contract: Contract) -> Iterator[Table]:
    """Relations of the declared schemas that no extension owns."""
    wanted = {*contract.schemas.exposed, *contract.schemas.tenant} | {split(name)[0] for name in contract.tables}
    return (t for t in catalog.tables if t.schema in wanted and not t.extension)


def reachable_tables(contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Relations that a client role can reach."""
    return iter(privileges.reached(tuple(contract.roles.clients)))


def protectable_tables(contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Tables with row security that a client role can reach."""
    for table in reachable_tables(contract, privileges):
        if table.kind in ("table", "partitioned") and table.row_security:
            yield table


def may_read(catalog: Catalog, privileges: Privileges, role: str, view: Table) -> bool:
    """True when a role may itself read all that a view reads, so that the view can ask as its caller."""
    behind = [table for name in view.reads if (table := catalog.table(name))]
    may = (any(h.privilege == "SELECT" for h in privileges.on(role, t)) for t in behind)
    return all(may) or not any(h.privilege == "SELECT" for h in privileges.on(role, view))


def indexes(catalog: Catalog, contract: Contract) -> Iterator[tuple[Table, Index]]:
    """Indexes of application tables."""
    for table in application_tables(catalog, contract):
        yield from ((table, index) for index in table.indexes)


def client_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions that a client role can execute."""
    for function in catalog.functions:
        schema = catalog.schema(function.schema)
        if function.extension or schema is None or function.returns in ("trigger", "event_trigger"):
            continue
        for role in contract.roles.clients:
            if privileges.may(role, "EXECUTE", function) and privileges.may(role, "USAGE", schema):
                yield function
                break


def sequences(catalog: Catalog, contract: Contract) -> Iterator[Sequence]:
    """Sequences of the declared schemas."""
    wanted = {*contract.schemas.exposed, *contract.schemas.tenant}
    return (s for s in catalog.sequences if s.schema in wanted and not s.extension)
