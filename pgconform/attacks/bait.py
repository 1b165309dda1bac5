"""Rows to aim at: copies of some rows of every owner, in a temporary table that clients of the drill can read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from pgconform.catalog import Catalog, Column, Table
from pgconform.checks import Evidence
from pgconform.contract import Command, Contract, TablePromise
from pgconform.database import Database
from pgconform.identities import Identity, identities
from pgconform.model import Nothing
from pgconform.names import qualified, split
from pgconform.privileges import Privileges
from pgconform.probes.visibility import belongs, shown, touchable
from pgconform.statements import Name, Statement, column, equal, statement
from pgconform.subjects import promise_of, reachable_tables

# Relations whose rows have a place, which tells them apart where there is no key.
_PLACED = ("table", "partitioned", "foreign", "materialized")
# Two rows of each owner, and not more than 40.
_COPY = """
create temporary table {copy} as
select pg_catalog.row_number() over (order by s.pgc_turn, {last})::int as pgc_row, s.*
from (select r.*, {place} as pgc_place, {relation} as pgc_relation,
             pg_catalog.row_number() over (partition by {holder} order by {order}) as pgc_turn
      from {table} as r) as s
where s.pgc_turn <= 2 order by 1 limit 40
"""


@dataclass(frozen=True, slots=True)
class Bait:
    """``count`` rows of ``table``, numbered from 1 in ``copy``; ``key`` are columns that tell rows apart."""

    table: Table
    declared: str
    promise: TablePromise
    holder: str
    key: tuple[str, ...]
    copy: Name
    count: int
    keyed: Table  # whose keys the rows have: the relation, or what a view reads first

    def __str__(self) -> str:
        return str(self.table)

    def column(self, name: str) -> Column | None:
        return self.table.column(name)


def targets(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Declared relations that a client role can reach."""
    for table in reachable_tables(contract, privileges):
        if promise_of(catalog, contract, table) is not None:
            yield table


_LAID: WeakKeyDictionary[Database, dict[str, Bait]] = WeakKeyDictionary()


def bait(evidence: Evidence, table: Table) -> Bait:
    """The rows to aim at in one relation, copied when first asked for.

    Raises Nothing where it is empty, NotVerified where it cannot be read.
    """
    laid = _LAID.setdefault(evidence.drills, {})
    if str(table) not in laid:
        laid[str(table)] = _lay(evidence, table)
    if not laid[str(table)].count:
        raise Nothing(f"{table} has no rows to aim at")
    return laid[str(table)]


def _lay(evidence: Evidence, table: Table) -> Bait:
    promise = promise_of(evidence.catalog, evidence.contract, table)
    assert promise is not None, "only declared relations are aimed at"
    declared = next(name for name, p in evidence.contract.tables.items() if p is promise)
    holder = evidence.contract.column_of(declared)
    copy = Name(("pg_temp", f"pgc_bait_{table.oid}"))
    placed = table.kind in _PLACED
    key = next((i.columns for i in table.indexes if i.primary), ())
    order = column(key[0]) if key else statement("r.ctid") if placed else statement("1")
    what = f"copying rows of {table}"
    database = evidence.drills
    database.run(statement("drop table if exists {copy}", copy=copy), what)
    database.run(
        statement(
            _COPY, copy=copy, table=Name.of(str(table)), order=order,
            holder=column(holder) if holder and table.column(holder) else statement("true"),
            last=column(holder, "s") if holder and table.column(holder) else statement("1"),
            place=statement("r.ctid" if placed else "null::tid"),
            relation=statement("r.tableoid" if placed else "null::oid"),
        ),
        what,
    )  # fmt: skip
    database.run(statement("grant select on {copy} to public", copy=copy), what)
    if table.kind == "view":
        _lay_seen(evidence, table, copy)
    count = database.one(statement("select pg_catalog.count(*) from {copy}", copy=copy), what)[0]
    behind = [found for name in table.reads if (found := evidence.catalog.table(name))]
    return Bait(table, declared, promise, holder, key, copy, int(count), next(iter(behind), table))


def _lay_seen(evidence: Evidence, view: Table, copy: Name) -> None:
    """Adds rows of a view that shows each caller its own, as it shows them to members; others have all rows by now."""
    database = evidence.drills
    if database.one(statement("select exists (select from {copy})", copy=copy), "looking at a view")[0]:
        return
    made = statement(
        "insert into {copy} select (select coalesce(max(c.pgc_row), 0) from {copy} as c)"
        " + pg_catalog.row_number() over ()::int, s.*, null::tid, null::oid, 1::bigint"
        " from (select r.* from {t} as r limit 2) as s",
        copy=copy, t=Name.of(str(view)),
    )  # fmt: skip
    for who in identities(evidence):
        if who.tenants and who.kind != "posing":
            begun = [statement("select pg_catalog.set_config({n}, {v}, true)", n=n, v=v) for n, v in who.settings]
            ended = [statement("select pg_catalog.set_config({n}, '', true)", n=n) for n, _ in who.settings]
            database.tried([*begun, made, *ended])


def shares(
    evidence: Evidence, given: Bait, identity: Identity, visible: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the rows that are the identity's own, all or those that must be ``visible``; of those that are not."""
    if given.promise.holds in ("shared", "service"):
        return (), tuple(range(1, given.count + 1))
    question = statement(
        "select r.pgc_row, {own}, coalesce({visible}, false) from {copy} as r order by 1",
        own=belongs(evidence, given.declared, identity), copy=given.copy,
        visible=shown(given.promise) if visible else statement("true"),
    )  # fmt: skip
    rows = evidence.drills.remembered(question, f"telling apart the rows of {given}")
    return tuple(n for n, own, seen in rows if own and seen), tuple(n for n, own, _ in rows if not own)


def forbidden(evidence: Evidence, given: Bait, identity: Identity, commands: tuple[Command, ...]) -> tuple[int, ...]:
    """Numbers of the rows that the identity must not touch by all of the commands together."""
    own, foreign = shares(evidence, given, identity)
    scopes = {evidence.contract.scope(given.declared, identity.role, command) for command in commands}
    more = "team" in scopes or (given.promise.nullable == "shared" and {*commands} == {"select"})
    if more:
        may = touchable(evidence, given.declared, identity, commands)
        question = statement("select r.pgc_row from {copy} as r where {may}", copy=given.copy, may=may)
        shared = {n for (n,) in evidence.drills.remembered(question, f"telling apart the rows of {given}")}
        foreign = tuple(n for n in foreign if n not in shared)
    if identity.after:  # the rows of the tenant that the session names
        named = shares(evidence, given, replace(identity, tenants=frozenset({identity.after})))[0]
        foreign = tuple(n for n in foreign if n in named) or foreign
    if "none" in scopes:
        return tuple(sorted(own + foreign))
    return foreign if scopes & {"own", "team"} else ()


def row(number: int, alias: str = "b") -> Statement:
    """The condition under which the copy's row is the one of that number."""
    return statement("{row} = {number}::int", row=column("pgc_row", alias), number=number)


def same(given: Bait, target: str = "t", alias: str = "b") -> Statement:
    """The condition under which a row of the relation is the one that was copied.

    Without a key it is the row's place; a view has neither: then all rows of the same owner are meant, or all.
    """
    if given.key:
        return equal(given.key, target, alias)
    if given.table.kind in _PLACED:
        return statement(
            "{t}.ctid = {b}.pgc_place and {t}.tableoid = {b}.pgc_relation", t=Name((target,)), b=Name((alias,))
        )
    return equal([given.holder], target, alias) if given.holder else statement("true")


def naming_users(evidence: Evidence, table: Table) -> frozenset[str]:
    """Columns that refer to a user: in the table of users, of members, or in one in which rows belong to users."""
    contract, wanted = evidence.contract, set()
    for tenancy in contract.tenancies.values():
        if members := tenancy.members:
            wanted.add((members.table, members.user))
            if members.users:
                *users, key = split(members.users)
                wanted.add((qualified(*users), key))
    wanted |= {(name, p.column) for name, p in contract.tables.items() if p.holds == "user"}
    return frozenset(
        column for key in table.foreign_keys()
        for column, other in zip(key.columns, key.referenced_columns, strict=True) if (key.references, other) in wanted
    )  # fmt: skip
