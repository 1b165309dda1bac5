"""One tenant's rows: taken out as streams, and brought back.

What belongs to a tenant follows from the contract: the rows of its tables that carry the tenant, its row of the
registry, its memberships, and the children of all these. Users are not a tenant's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.catalog import Catalog, Table
from pgconform.contract import Contract
from pgconform.database import Database, said
from pgconform.model import Finding, Nothing, NotVerified
from pgconform.names import quote
from pgconform.recovery.compare import TEXTS, checksum
from pgconform.recovery.copies import Copy
from pgconform.reproduce import tenant_digest
from pgconform.statements import Name, Rows, Statement, column, columns, joined, statement

if TYPE_CHECKING:
    from psycopg import Connection

LOST = "-- declare the table under [tables], as a child of what it belongs to, so that an export takes its rows along"
LOADED = "-- let rows be loaded as they are: see the triggers, rules and constraints of the table"
FOREIGN = "-- a row is one tenant's: make what it names unique, or refer to its parent by the tenant, too"
Sums = dict[str, tuple[int, int]]  # rows of each table, and the sum of their hashes


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as questions name it; ``masked``: by the digest of its key, for people to read."""

    key: str
    masked: bool = False

    def named(self, by: Name, operator: str = "=") -> Statement:
        """The condition that a column names it, or does not."""
        if not self.masked:
            return statement(f"{{c}}::text {operator} {{key}}", c=by, key=self.key)
        return statement(
            "pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({c}::text, 'UTF8')), 'hex'), 12)"
            f" {operator} {{digest}}", c=by, digest=tenant_digest(self.key),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """The rows ``r`` of one table that belong to a tenant; ``foreign`` says which rows are another tenant's."""

    table: Table
    where: Statement
    foreign: Statement

    @property
    def columns(self) -> Statement:
        return joined(Name((c.name,)) for c in self.table.columns if not c.generated)


def parts(contract: Contract, catalog: Catalog, tenancy: str, tenant: Tenant) -> list[Part]:
    """What belongs to the tenant, referenced tables first, as far as they do not refer to each other in a circle."""
    found = {}
    for name in contract.tables:
        table, where = catalog.table(name), _where(contract, tenancy, tenant, name)
        if where and table and table.kind in ("table", "partitioned"):
            others = [_where(contract, tenancy, tenant, name, operator="<>") or where]
            if contract.tables[name].holds == "child":  # which may say otherwise than its parent
                others += [tenant.named(column(own), "<>") for own in _naming(contract, tenancy, table)]
            found[name] = Part(table, where, joined(others, " or "))
    graph = {name: {key.references for key in part.table.foreign_keys()} & found.keys() - {name}
             for name, part in sorted(found.items())}  # fmt: skip
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:
        order = sorted(found)  # constraints that can be deferred let it load; for the others, loading says which
    return [found[name] for name in order]


def _naming(contract: Contract, tenancy: str, table: Table) -> list[str]:
    """Columns of the table that name a tenant, whatever the contract says of the table: they are called so."""
    item = contract.tenancies[tenancy]
    called = {item.column, *([item.members.tenant] if item.members else [])}
    known = {item.registry.table} if item.registry else set()
    return [c.name for c in table.columns if c.name in called and str(table) not in known]


def _where(
    contract: Contract, tenancy: str, tenant: Tenant, table: str, row: str = "r", operator: str = "="
) -> Statement | None:
    """The condition under which a row is the tenant's; None where no row of the table is any tenant's."""
    promise = contract.tables[table]
    members = contract.tenancies[tenancy].members
    named = ""
    if promise.holds == "tenant" and contract.tenancy_of(promise) is contract.tenancies[tenancy]:
        named = contract.column_of(table)
    elif members and members.table == table:
        named = members.tenant
    if named:
        return tenant.named(column(named, row), operator)
    if promise.holds == "child" and (above := _where(contract, tenancy, tenant, promise.parent, f"{row}p", operator)):
        return statement(
            "exists (select from {parent} as {p} where {key} = {column} and {above})",
            parent=Name.of(promise.parent), p=Name((f"{row}p",)), key=column(promise.parent_key, f"{row}p"),
            column=column(promise.column, row), above=above,
        )  # fmt: skip
    return None


def extremes(database: Database, contract: Contract, catalog: Catalog, tenancy: str) -> dict[str, str]:
    """The tenants with most and with fewest rows in the tables that name one, by what they are called in findings.
    Raises Nothing where there is none, NotVerified."""
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
        " order by pg_catalog.sum(c.n) desc, 1",
        counts=joined(counts, " union all "),
    )  # fmt: skip
    found = [str(tenant) for (tenant,) in database.rows(question, "looking for a tenant")]
    if not found:
        raise Nothing(f"there is no tenant of {tenancy}")
    return {"the largest tenant": found[0]} | ({"the smallest tenant": found[-1]} if len(found) > 1 else {})


def knowing(database: Database, contract: Contract, catalog: Catalog, tenant: str) -> list[str]:
    """The tenancies that have a tenant of that key, in its registry or in any of its tables. Raises NotVerified."""
    found = []
    for tenancy, item in contract.tenancies.items():
        places = [(item.registry.table, item.registry.key)] if item.registry else []
        places += [(name, contract.column_of(name)) for name in contract.tenant_tables()
                   if contract.tenancy_of(contract.tables[name]) is item]  # fmt: skip
        there = [Rows(name, Tenant(tenant).named(column(named))).source for name, named in places
                 if (table := catalog.table(name)) and table.column(named)]  # fmt: skip
        asked = (statement("select exists (select from {rows})", rows=rows) for rows in there)
        if any(database.one(question, "looking for a tenant")[0] for question in asked):
            found.append(tenancy)
    return found


def forgotten(contract: Contract, catalog: Catalog, tenancy: str, tenant: Tenant, wanted: list[Part]) -> Iterator[Rows]:
    """Rows of tables that no part is of, which refer to rows of a part by the catalogue's foreign keys, or name the
    tenant in a column that is called as the contract calls it: whatever the contract says of the table."""
    parts = {str(part.table): part for part in wanted}
    for table in catalog.tables:
        if {str(table), table.parent} & parts.keys() or table.kind not in ("table", "partitioned") or table.extension:
            continue
        mine = [tenant.named(column(own)) for own in _naming(contract, tenancy, table)]
        mine += [
            statement(
                "({own}) in (select {its} from {rows})", own=columns(key.columns), its=columns(key.referenced_columns),
                rows=Rows(key.references, parts[key.references].where).source,
            )
            for key in table.foreign_keys() if key.references in parts and not key.inherited
        ]  # fmt: skip
        if mine and not catalog.table(table.parent):  # a partition is counted with its parent
            yield Rows(str(table), joined(mine, " or "))


def foreign(wanted: list[Part]) -> Iterator[Rows]:
    """Rows of the parts that are another tenant's, too."""
    for part in wanted:
        yield Rows(str(part.table), statement("{one} and ({other})", one=part.where, other=part.foreign))


def export(database: Database, wanted: list[Part], folder: Path) -> int:
    """Write each part's rows into a file of its own, as COPY streams them (binary). Returns the number of bytes.

    Raises NotVerified."""
    size = 0
    for number, part in enumerate(wanted):
        question = statement("select {columns} from {rows}", columns=part.columns,
                             rows=Rows(str(part.table), part.where).source)  # fmt: skip
        try:
            with (folder / str(number)).open("wb") as file:
                for block in database.copied(question, f"exporting {part.table}"):
                    size += file.write(block)
        except OSError as error:
            why = f"{error.strerror}; set PGC_CACHE_DIR to a place with more room"
            raise NotVerified(f"a tenant's export cannot be written: {why}") from None
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


def its(database: Database, catalog: Catalog, wanted: list[Part], *, alone: bool = False) -> Sums:
    """Rows and hashes of the parts; where the tenant is ``alone`` in these tables, of all their rows."""
    found: Sums = {}
    with database.setting(tuple(TEXTS.items()), "reading a tenant's rows"):
        for part in wanted:
            question = checksum(part.table, catalog, None if alone else part.where)
            count, total = database.one(question, f"reading {part.table}")
            found[str(part.table)] = (int(count), int(total))
    return found


def sums(database: Database, catalog: Catalog, wanted: list[Part]) -> tuple[Sums, Sums]:
    """Rows and hashes of every table, and of the tenant's rows among them. A hash of others is the difference."""
    all_rows: Sums = {}
    mine = {str(part.table): part for part in wanted}
    with database.setting(tuple(TEXTS.items()), "reading all rows"):
        for table in catalog.tables:
            name = str(table)
            whole = table.kind == "table" or name in mine  # else its partitions are counted
            if whole and table.kind in ("table", "partitioned") and not table.extension and table.parent not in mine:
                count, total = database.one(checksum(table, catalog), f"reading {name}")
                all_rows[name] = (int(count), int(total))
    return all_rows, dict.fromkeys(all_rows, (0, 0)) | its(database, catalog, wanted)


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


def emptied(copy: Copy, tables: Collection[str]) -> None:
    """Remove all rows of the tables that hold tenants' rows, and nothing that refers to them or hangs on a trigger."""
    with copy.connect() as connection, connection.transaction():
        connection.execute("set local session_replication_role = replica")
        for table in sorted(tables):
            connection.execute(statement("delete from {t}", t=Name.of(table)).inline(connection).encode())
