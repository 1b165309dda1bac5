"""What each kind of session sees of each relation, beside what it should see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.contract import Command, Contract, TablePromise, Tenancy
from pgconform.database import Database
from pgconform.identities import Identity, identities
from pgconform.model import NotVerified
from pgconform.names import qualified, split
from pgconform.people import tenant_counts
from pgconform.privileges import Privileges
from pgconform.reproduce import session_script
from pgconform.statements import Name, Statement, column, joined, statement, written
from pgconform.subjects import promise_of, reachable_tables


@dataclass(frozen=True, slots=True)
class Sight:
    """Rows of ``table`` that ``identity`` saw: of its own, of others; ``expected`` of its own there are.

    ``error`` is why the server refused to answer the client; ``unverified`` why pgconform could not ask.
    """

    identity: Identity
    table: str
    own: int = 0
    foreign: int = 0
    expected: int = 0
    error: str = ""
    unverified: str = ""


def readable_tables(contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Relations that a client role can read."""
    for table in reachable_tables(contract, privileges):
        if any(h.privilege == "SELECT" for role in contract.roles.clients for h in privileges.on(role, table)):
            yield table


_KNOWN: WeakKeyDictionary[Database, tuple[Sight, ...]] = WeakKeyDictionary()


def sights(evidence: Evidence) -> tuple[Sight, ...]:
    """Every pair of identity and readable relation; asked once per database. Raises NotVerified."""
    if evidence.database not in _KNOWN:
        _KNOWN[evidence.database] = tuple(_look(evidence))
    return _KNOWN[evidence.database]


def seen(evidence: Evidence, table: Table, *kinds: str) -> Iterator[Sight]:
    """What identities of these kinds saw of one relation. Raises NotVerified where that could not be asked."""
    for sight in sights(evidence):
        if sight.table == str(table) and sight.identity.kind in kinds:
            if sight.unverified:
                raise NotVerified(sight.unverified)
            if not sight.error:
                yield sight


def _look(evidence: Evidence) -> Iterator[Sight]:
    relations = list(reachable_tables(evidence.contract, evidence.privileges))
    for identity in identities(evidence):
        readable = [t for t in relations if _readable(evidence, identity, t)]
        if not readable:
            continue
        try:
            counts = _counts(evidence, identity, readable)
        except NotVerified:  # one relation spoils the whole statement: ask for each alone
            counts = {}
        for table in readable:
            yield _sight(evidence, identity, table, counts)


def _readable(evidence: Evidence, identity: Identity, table: Table) -> bool:
    schema = evidence.catalog.schema(table.schema)
    held = evidence.privileges.on(identity.role, table)
    usable = schema is not None and evidence.privileges.may(identity.role, "USAGE", schema)
    return usable and any(h.privilege == "SELECT" for h in held)


def _tenants(evidence: Evidence, promise: TablePromise, identity: Identity) -> frozenset[str]:
    """The identity's tenants in the tenancy that the relation's rows belong to."""
    return identity.tenants_of(promise.tenancy or next(iter(evidence.contract.tenancies)))


def _sight(evidence: Evidence, identity: Identity, table: Table, counts: dict[str, tuple[int, int]]) -> Sight:
    name = str(table)
    if name not in counts:
        try:
            counts |= _counts(evidence, identity, [table])
        except NotVerified as reason:
            refusals = (
                ("42", "22") if identity.kind in ("bare", "posing") else ("42",)
            )  # a tenant that is not there is no number
            if reason.state.startswith(refusals):  # the client's own statement is refused: that is an observation
                return Sight(identity, name, error=reason.said)
            return Sight(identity, name, unverified=f"{identity}: {reason}")
    own, foreign = counts[name]
    try:
        expected = _expected(evidence, identity, table)
    except NotVerified as reason:
        return Sight(identity, name, own, foreign, unverified=str(reason))
    if _blind(evidence, identity, table):  # rows cannot be told apart: their number must do
        own, foreign = min(own, expected), max(0, own - expected)
    return Sight(identity, name, own, foreign, expected)


def _blind(evidence: Evidence, identity: Identity, table: Table) -> bool:
    """True where the client may read rows, but not the column that says whose they are."""
    promise = promise_of(evidence.catalog, evidence.contract, table)
    if promise is None or promise.holds not in ("tenant", "user", "child"):
        return False
    readable = {h.column for h in evidence.privileges.on(identity.role, table) if h.privilege == "SELECT"}
    return not readable & {"", evidence.contract.column_of(_name(evidence, promise))}


def _question(evidence: Evidence, identity: Identity, tables: list[Table]) -> Statement:
    """For each relation: its number in the list, how many rows are the identity's own, and how many are not."""
    one = "select {i}::int, pg_catalog.count(*) filter (where {own}), pg_catalog.count(*) filter (where not {own})"
    asked = [
        statement(
            one + " from {table} as r",
            i=i,
            own=statement("true") if _blind(evidence, identity, table) else _own(evidence, identity, table),
            table=Name.of(str(table)),
        )
        for i, table in enumerate(tables)
    ]
    return joined(asked, " union all ")


def _counts(evidence: Evidence, identity: Identity, tables: list[Table]) -> dict[str, tuple[int, int]]:
    question = _question(evidence, identity, tables)
    what = f"reading {tables[0] if len(tables) == 1 else f'{len(tables)} relations'} as {identity}"
    answer = evidence.database.rows(question, what, role=identity.role, settings=identity.settings)
    return {str(tables[i]): (own, foreign) for i, own, foreign in answer}


def sight_script(evidence: Evidence, table: Table, sight: Sight) -> str:
    """SQL for psql that counts, as such a session, rows that are its own and rows that are not; it names nobody."""
    known: dict[str, Statement] = {}
    for who in identities(evidence):
        if who.kind not in ("anonymous", "unknown", "bare"):  # whom no table knows
            tenancy = evidence.contract.tenancies[who.tenancy]
            known |= {value: _among(tenancy, "tenant", table, evidence) for value in who.tenants}
            known |= {who.user: _among(tenancy, "user", table, evidence)} if who.user and tenancy.members else {}
    asked = _question(evidence, sight.identity, [table])
    return session_script(sight.identity.role, sight.identity.settings, known, asked)


def _among(tenancy: Tenancy, what: str, table: Table, evidence: Evidence) -> Statement:
    """All tenants or users as texts, from wherever the contract says that they are."""
    members, registry = tenancy.members, tenancy.registry
    places = [(members.table, members.tenant if what == "tenant" else members.user)] if members else []
    if what == "tenant":
        places += [(registry.table, registry.key)] if registry else []
        promise = promise_of(evidence.catalog, evidence.contract, table)
        there = promise is not None and promise.holds == "tenant"
        places += [(str(table), evidence.contract.column_of(_name(evidence, promise)))] if promise and there else []
    elif members and members.users:
        schema, name, column_name = split(members.users)
        places.append((qualified(schema, name), column_name))
    queries = [statement("select {c}::text from {t} as r", c=column(c), t=Name.of(t)) for t, c in places]
    return joined(queries, " union all ")


def _own(evidence: Evidence, identity: Identity, table: Table) -> Statement:
    """The condition under which row ``r`` is one that the identity should see."""
    contract = evidence.contract
    promise = promise_of(evidence.catalog, contract, table)
    if promise is None:
        return statement("false")
    declared = next(name for name, p in contract.tables.items() if p is promise)
    scope = contract.scope(declared, identity.role, "select")
    if scope in ("all", "shared"):
        return statement("true")
    if scope == "none" or promise.holds in ("shared", "service"):
        return statement("false")
    return touchable(evidence, declared, identity, ("select",))


def touchable(evidence: Evidence, declared: str, identity: Identity, commands: tuple[Command, ...]) -> Statement:
    """The condition under which the identity may touch row ``r`` by those commands: its own or one of its team's, and,
    to read it, everybody's for having no tenant."""
    scopes = {evidence.contract.scope(declared, identity.role, command) for command in commands}
    own = (concerns if "team" in scopes and "own" not in scopes else belongs)(evidence, declared, identity)
    all = everybodys(evidence.contract, declared) if {*commands} == {"select"} else None
    return statement("({own} or {all})", own=own, all=all) if all else own


def everybodys(contract: Contract, declared: str) -> Statement | None:
    """The condition under which row ``r`` has no tenant and is everybody's to read for that; None where none is."""
    promise = contract.tables.get(declared)
    if promise is None or promise.holds != "tenant" or promise.nullable != "shared":
        return None
    return statement("{c} is null", c=column(contract.column_of(declared)))


def shown(promise: TablePromise | None) -> Statement:
    """The condition under which row ``r`` must be seen by those whose it is."""
    return written(promise.visible) if promise and promise.visible else statement("true")


def belongs(evidence: Evidence, declared: str, identity: Identity, alias: str = "r") -> Statement:
    """The condition under which a row of a declared relation is the identity's own; never null."""
    promise = evidence.contract.tables[evidence.contract.rooted(declared)]
    if promise.holds == "user":
        return belonging(evidence.contract, declared, (identity.user,), alias)
    return belonging(evidence.contract, declared, tuple(sorted(_tenants(evidence, promise, identity))), alias)


def belonging(contract: Contract, declared: str, owners: tuple[str, ...], alias: str = "r") -> Statement:
    """The condition under which a row of a declared relation, or the row that it hangs on, is one of these tenants' or
    users'; never null."""
    promise = contract.tables[declared]
    own = column(contract.column_of(declared), alias)
    if promise.holds != "child":
        return statement("coalesce({own}::text = any({o}::text[]), false)", own=own, o=owners)
    inner = belonging(contract, promise.parent, owners, alias + "p")
    return statement(
        "exists (select from {parent} as {alias} where {key} = {own} and {inner})",
        parent=Name.of(promise.parent), alias=Name((alias + "p",)), key=column(promise.parent_key, alias + "p"),
        own=own, inner=inner,
    )  # fmt: skip


def concerns(evidence: Evidence, declared: str, identity: Identity) -> Statement:
    """As ``belongs``; of rows that belong to users also those of users with whom the identity shares a tenant."""
    own = belongs(evidence, declared, identity)
    tenancy = evidence.contract.tenancies.get(identity.tenancy)
    if evidence.contract.tables[declared].holds != "user" or not tenancy or not tenancy.members:
        return own
    return statement(
        "({own} or exists (select from {t} as m"
        " where {user}::text = {c}::text and {tenant}::text = any({own_t}::text[])))",
        own=own, t=Name.of(tenancy.members.table), user=column(tenancy.members.user, "m"),
        c=column(evidence.contract.column_of(declared)), tenant=column(tenancy.members.tenant, "m"),
        own_t=tuple(sorted(identity.tenants)),
    )  # fmt: skip


def _expected(evidence: Evidence, identity: Identity, table: Table) -> int:
    """How many rows the identity should see, counted by a session that sees everything."""
    promise = promise_of(evidence.catalog, evidence.contract, table)
    if promise is None or promise.holds != "tenant" or promise.visible or promise.nullable == "shared":
        own = _own(evidence, identity, table)
        if promise and evidence.contract.scope_by(promise, identity.role, "select") == "team":  # which may be seen
            own = belongs(evidence, _name(evidence, promise), identity)
        own = statement("{own} and {v}", own=own, v=shown(promise))
        question = statement("select pg_catalog.count(*) from {t} as r where {own}", t=Name.of(str(table)), own=own)
        return int(evidence.database.remembered(question, f"counting rows of {table}")[0][0])
    scope = evidence.contract.scope(_name(evidence, promise), identity.role, "select")
    per_tenant = tenant_counts(evidence, str(table), evidence.contract.column_of(_name(evidence, promise)))
    if scope in ("all", "shared"):
        return sum(per_tenant.values())
    return sum(per_tenant[t] for t in _tenants(evidence, promise, identity)) if scope == "own" else 0


def _name(evidence: Evidence, promise: TablePromise) -> str:
    return next(name for name, p in evidence.contract.tables.items() if p is promise)
