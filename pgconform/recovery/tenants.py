"""One tenant's rows: taken out as streams, and brought back.

What belongs to a tenant follows from the contract: the rows of its tables that carry the tenant, its row of the
registry, its memberships, and the children of all these. Users are not a tenant's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.catalog import Catalog, Table
from pgconform.contract import Contract
from pgconform.database import Database, said
from pgconform.model import Finding, Nothing
from pgconform.names import quote
from pgconform.recovery.compare import TEXTS, checksum
from pgconform.recovery.copies import Copy
from pgconform.statements import Name, Statement, joined, statement

if TYPE_CHECKING:
    from psycopg import Connection

LOST = "-- declare the table under [tables], as a child of what it belongs to, so that an export takes its rows along"
LOADED = "-- let rows be loaded as they are: see the triggers, rules and constraints of the table"
Sums = dict[str, tuple[int, int]]  # rows of each table, and the sum of their hashes


@dataclass(frozen=True, slots=True)
class Part:
    """The rows ``r`` of one table that belong to a tenant."""

    table: Table
    where: Statement

    @property
    def columns(self) -> Statement:
        return joined(Name((c.name,)) for c in self.table.columns if not c.generated)


def parts(contract: Contract, catalog: Catalog, tenancy: str, tenant: str) -> list[Part]:
    """What belongs to the tenant, referenced tables first, as far as they do not refer to each other in a circle."""
    wheres = {name: _where(contract, tenancy, tenant, name, "r") for name in contract.tables}
    found = {name: Part(table, where) for name, where in wheres.items()
             if where and (table := catalog.table(name)) and table.kind in ("table", "partitioned")}  # fmt: skip
    graph = {name: {key.references for key in part.table.foreign_keys()} & found.keys() - {name}
             for name, part in sorted(found.items())}  # fmt: skip
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:
        order = sorted(found)  # constraints that can be deferred let it load; for the others, loading says which
    return [found[name] for name in order]


def _where(contract: Contract, tenancy: str, tenant: str, table: str, row: str) -> Statement | None:
    """The condition under which a row is the tenant's; None where no row of the table is any tenant's."""
    promise = contract.tables[table]
    members = contract.tenancies[tenancy].members
    column = ""
    if promise.holds == "tenant" and contract.tenancy_of(promise) is contract.tenancies[tenancy]:
        column = contract.column_of(table)
    elif members and members.table == table:
        column = members.tenant
    if column:
        return statement("{c}::text = {tenant}", c=Name((row, column)), tenant=tenant)
    if promise.holds == "child" and (above := _where(contract, tenancy, tenant, promise.parent, f"{row}p")):
        return statement(
            "exists (select from {parent} as {p} where {key} = {column} and {above})",
            parent=Name.of(promise.parent), p=Name((f"{row}p",)), key=Name((f"{row}p", promise.parent_key)),
            column=Name((row, promise.column)), above=above,
        )  # fmt: skip
    return None


def largest(database: Database, contract: Contract, catalog: Catalog, tenancy: str) -> str:
    """The tenant with most rows in the tables that name one. Raises Nothing where there is none, NotVerified."""
    counts = [
        statement("select r.{c}::text as tenant, pg_catalog.count(*) as n from {table} as r group by 1",
                  c=Name((contract.column_of(name),)), table=Name.of(name))
        for name in contract.tenant_tables()
        if contract.tenancy_of(contract.tables[name]) is contract.tenancies[tenancy] and catalog.table(name)
    ]  # fmt: skip
    if not counts:
        raise Nothing(f"no table names a tenant of {tenancy}")
    question = statement(
        "select c.tenant from ({counts}) as c where c.tenant is not null group by 1"
        " order by pg_catalog.sum(c.n) desc, 1 limit 1",
        counts=joined(counts, " union all "),
    )  # fmt: skip
    found = database.rows(question, "looking for a tenant")
    if not found:
        raise Nothing(f"there is no tenant of {tenancy}")
    return str(found[0][0])


def forgotten(database: Database, catalog: Catalog, wanted: list[Part]) -> Iterator[tuple[str, int]]:
    """Tables that no part is of, with the number of their rows that refer to rows of a part: by the catalogue's foreign
    keys, whatever the contract says."""
    parts = {str(part.table): part for part in wanted}
    for table in catalog.tables:
        if str(table) in parts or table.parent in parts or table.kind not in ("table", "partitioned"):
            continue
        mine = [
            statement(
                "exists (select from {parent} as r where {where} and {pairs})",
                parent=Name.of(key.references), where=parts[key.references].where,
                pairs=joined((statement("{a} = {b}", a=Name(("r", its)), b=Name(("o", own)))
                              for own, its in zip(key.columns, key.referenced_columns, strict=True)), " and "),
            )
            for key in table.foreign_keys() if key.references in parts and not key.inherited
        ]  # fmt: skip
        if mine:
            counted = statement("select pg_catalog.count(*) from {t} as o where {any}", t=Name.of(str(table)),
                                any=joined(mine, " or "))  # fmt: skip
            if count := int(database.one(counted, f"reading {table}")[0]):
                yield str(table), count


def export(connection: Connection[Any], wanted: list[Part], folder: Path) -> int:
    """Write each part's rows into a file of its own, as COPY streams them (binary). Returns the number of bytes."""
    size = 0
    for number, part in enumerate(wanted):
        command = statement(
            "copy (select {columns} from {table} as r where {where}) to stdout (format binary)",
            columns=part.columns, table=Name.of(str(part.table)), where=part.where,
        )  # fmt: skip
        text = command.inline(connection).encode()
        with (folder / str(number)).open("wb") as file, connection.cursor() as cursor, cursor.copy(text) as stream:
            for block in stream:
                size += file.write(block)
    return size


def load(connection: Connection[Any], wanted: list[Part], folder: Path) -> Finding | None:
    """Bring back what ``export`` wrote, in one transaction; where that fails, what is in the way."""
    import psycopg

    at = wanted[0]
    try:
        with connection.transaction():
            connection.execute("set constraints all deferred")
            for number, part in enumerate(wanted):
                at = part
                command = statement(
                    "copy {table} ({columns}) from stdin (format binary)",
                    table=Name.of(str(part.table)), columns=part.columns,
                )  # fmt: skip
                text = command.inline(connection).encode()
                with (
                    (folder / str(number)).open("rb") as file,
                    connection.cursor() as cursor,
                    cursor.copy(text) as stream,
                ):
                    while block := file.read(1 << 16):
                        stream.write(block)
    except psycopg.Error as error:
        constraint = f", constraint {quote(error.diag.constraint_name)}" if error.diag.constraint_name else ""
        return Finding(str(at.table), f"a tenant's rows cannot be loaded: {said(error)}{constraint}", LOADED, "loading")
    return None


def sums(database: Database, catalog: Catalog, wanted: list[Part]) -> tuple[Sums, Sums]:
    """Rows and hashes of every table, and of the tenant's rows among them. A hash of others is the difference."""
    all_rows: Sums = {}
    its: Sums = {}
    mine = {str(part.table): part for part in wanted}
    with database.setting(TEXTS, "reading all rows"):
        for table in catalog.tables:
            name = str(table)
            whole = table.kind == "table" or name in mine  # else its partitions are counted
            if whole and table.kind in ("table", "partitioned") and not table.extension and table.parent not in mine:
                count, total = database.one(checksum(table, catalog), f"reading {name}")
                all_rows[name] = its[name] = (int(count), int(total))
                asked = checksum(table, catalog, mine[name].where) if name in mine else None
                count, total = database.one(asked, f"reading {name}") if asked else (0, 0)
                its[name] = (int(count), int(total))
    return all_rows, its


def differences(one: Sums, other: Sums) -> Iterator[tuple[str, int, int]]:
    """Tables whose rows are not the same, with the number of rows that there were, and that there are."""
    for name, before in sorted(one.items()):
        if before != (now := other.get(name, (0, 0))):
            yield name, before[0], now[0]


def removed(connection: Connection[Any], wanted: list[Part]) -> Finding | None:
    """Delete the tenant's rows, the referring ones first; where that fails, what is in the way."""
    import psycopg

    try:
        with connection.transaction():
            connection.execute("set constraints all deferred")
            for part in reversed(wanted):
                command = statement(
                    "delete from {table} as r where {where}", table=Name.of(str(part.table)), where=part.where
                )
                connection.execute(command.inline(connection).encode())
    except psycopg.Error as error:
        where = error.diag.schema_name, error.diag.table_name
        table = ".".join(quote(part) for part in where if part) or "the tenant's tables"
        observed = f"a tenant's rows cannot be deleted: {said(error)}"
        return Finding(table, observed, LOST, "deleting")
    return None


def emptied(copy: Copy, wanted: list[Part]) -> None:
    """Remove all rows of the tables that hold tenants' rows, and of whatever refers to them."""
    with copy.connect() as connection:
        tables = joined(Name.of(str(part.table)) for part in wanted)
        connection.execute(statement("truncate {tables} cascade", tables=tables).inline(connection).encode())
