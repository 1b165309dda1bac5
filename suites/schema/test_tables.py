"""What exists: declared relations and columns, nothing undeclared beside them, no copy of the tenant tables."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Schema, Table
from pgconform.checks import check, did_you_mean
from pgconform.contract import Contract, TablePromise, Tenancy
from pgconform.model import Finding
from pgconform.names import quote, same_type, split
from pgconform.privileges import Privileges
from pgconform.remedies import add_column, create_table, noun, promised_columns, retype, set_logged, shut
from pgconform.subjects import (
    Declared,
    application_tables,
    declared_name,
    promise_of,
    tables,
    tenant_rows,
)  # fmt: skip


@check("tables-exist", guide=["muva-1", "vs-1"], when=["gate"], each=tables)
def test_every_declared_table_exists(
    subject: Declared[TablePromise], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every relation that the contract declares exists.

    A missing table means a migration that did not run, or ran elsewhere: what depends on it fails at run time.
    """
    if catalog.table(subject.table) is None and not subject.item.optional:
        remedy = create_table(contract, catalog, subject.table)
        near = did_you_mean(subject.table, (str(t) for t in catalog.tables if promise_of(catalog, contract, t) is None))
        yield Finding(subject.table, f"the relation does not exist{near}", remedy)


def present_columns(contract: Contract) -> Iterator[Declared[tuple[str, ...]]]:
    """Relations that the contract declares and that exist."""
    columns = promised_columns(contract)
    return (Declared(name, "", columns.get(name, ()), ((name, ()),)) for name in contract.tables)


@check("columns-exist", guide=["muva-1", "vs-1"], when=["gate"], each=present_columns)
def test_every_declared_column_exists(
    subject: Declared[tuple[str, ...]], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every column that a promise of the contract speaks of exists.

    A promise about a column that is gone or was renamed would otherwise go unchecked.
    """
    table = catalog.table(subject.table)
    for name in subject.item if table else ():
        if table and table.column(name) is None:
            near = did_you_mean(name, (column.name for column in table.columns))
            observed = f"the column {quote(name)} does not exist{near}"
            remedy = add_column(contract, catalog, subject.table, name)
            yield Finding(subject.table, observed, remedy, detail=quote(name))


@check("tables-logged", guide=["muva-31", "vs-29"], when=["gate", "monthly"], of=application_tables)
def test_what_tenants_own_survives_a_crash(table: Table, catalog: Catalog, contract: Contract) -> Iterator[Finding]:
    """Every table of tenants' or users' rows, every registry and every table of members is logged.

    A crash empties an unlogged table, and neither a replica nor a backup that follows the log has its rows.
    """
    if table.persistence != "u":
        return
    declared, promise = declared_name(catalog, contract, table), promise_of(catalog, contract, table)
    ruling = {item.table for t in contract.tenancies.values() for item in (t.registry, t.members) if item}
    owned = promise and (promise.holds in ("tenant", "user", "child") or declared in ruling)
    if table.kind == "table" and promise and owned and not promise.unlogged:
        yield Finding(str(table), "the table is unlogged", set_logged(catalog, table))


def undeclared(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Relations in tenant schemas, or that a client role can reach."""
    reached = {str(table) for table in privileges.reached(tuple(contract.roles.clients))}
    for table in catalog.tables:
        if not table.extension and (table.schema in contract.schemas.tenant or str(table) in reached):
            yield table


@check("tables-declared", guide=["muva-1"], when=["gate"], of=undeclared)
def test_nothing_undeclared_is_reachable(
    table: Table, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Every relation in a tenant schema, or within reach of a client role, is declared.

    What nobody declared nobody protects: a helper table, a copy made for a migration, a view for a dashboard.
    """
    if promise_of(catalog, contract, table) is None:
        observed = f"the {noun(table)} is not in the contract: declare it there, or take it away"
        if table.schema not in contract.schemas.tenant:  # it may well be somebody's, only not the clients'
            yield Finding(str(table), observed, shut(table, contract, privileges))
            return
        stored = table.stores_rows
        rows = f"select * from {table};" if stored else ""
        yield Finding(str(table), observed, f"drop {noun(table)} {table} cascade;", destroys=stored, rows=rows)


def schemas(catalog: Catalog, contract: Contract) -> Iterator[tuple[Schema, list[Table], bool]]:
    """Schemas of the database."""
    tables: dict[str, list[Table]] = {}
    for table in catalog.tables:
        tables.setdefault(table.schema, []).append(table)
    said = {*contract.schemas.exposed, *contract.schemas.tenant, *contract.schemas.internal}
    return ((schema, tables.get(schema.name, []), schema.name in said) for schema in catalog.schemas)


@check("schema-per-tenant", guide=["muva-6"], when=["gate"], of=schemas)
def test_no_schema_holds_a_copy_of_the_tenant_tables(
    subject: tuple[Schema, list[Table], bool], contract: Contract
) -> Iterator[Finding]:
    """No undeclared schema holds tables that are called like the tenant tables.

    A schema for each tenant is the pattern that was given up: nobody maintains, indexes or protects its tables.
    """
    schema, tables, said = subject
    if said:
        return
    paths = [split(name) for name in contract.tenant_tables()]
    names = {name for tenants, name in paths if tenants in contract.schemas.tenant}
    copies = sorted(t.name for t in tables if t.stores_rows and t.name in names)
    if copies and schema.name not in {split(name)[0] for name in contract.tables}:
        observed = f"the schema is not declared and holds copies of tenant tables: {', '.join(map(quote, copies))}"
        rows = " ".join(f"select * from {schema}.{quote(name)};" for name in copies)
        yield Finding(str(schema), observed, f"drop schema {schema} cascade;", destroys=True, rows=rows)


@check("tenant-column", guide=["muva-3", "vs-1"], when=["gate"], each=tenant_rows)
def test_every_tenant_table_has_its_tenant_column(
    subject: Declared[Tenancy], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """The tenant column is of the declared type and NOT NULL.

    A row without a tenant belongs to nobody, or, under a careless policy, to everybody.
    """
    table, name = catalog.table(subject.table), contract.column_of(subject.table)
    column = table.column(name) if table else None
    if table is None or column is None or table.kind in ("view", "materialized"):
        return
    if not same_type(subject.item.type, column.type):
        remedy = retype(table, name, subject.item.type)
        yield Finding(str(table), f"{quote(name)} is {column.type}, not {subject.item.type}", remedy, "type")
    if not column.not_null and not contract.tables[subject.table].nullable:
        remedy = f"alter table {table} alter column {quote(name)} set not null;"
        yield Finding(str(table), f"{quote(name)} may be null", remedy, "not null")


@check("tenant-column-indexed", guide=["muva-3"], when=["gate"], each=tenant_rows)
def test_every_tenant_column_leads_an_index(
    subject: Declared[Tenancy], catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Some valid index of all rows that have a tenant has the tenant column as its leading column.

    Every policy filters by it: without the index each query of each tenant reads all tenants' rows.
    """
    table, name = catalog.table(subject.table), contract.column_of(subject.table)
    if table is None or table.kind == "view":
        return
    leading = [index for index in table.indexes if index.columns and index.columns[0] == name]
    if not any(i.valid and i.ready and i.has_all(name) and i.method == "btree" for i in leading):
        remedy = f"create index on {table} ({quote(name)});"
        partial = next((f"; {i} has some rows only: {i.predicate}" for i in leading if i.predicate), "")
        yield Finding(str(table), f"no valid index of all rows leads with {quote(name)}{partial}", remedy)
