"""Whom to act as, chosen from the data: members of the smallest and largest tenants, and owners of every table.

Users and tenants are text here, whatever their types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pgconform.checks import Evidence
from pgconform.contract import Contract, Members, TablePromise, Tenancy
from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, column, joined, statement

# Users that are in no table, by the type of the column that names users.
NOBODY = "00000000-0000-4000-8000-000000000000"
NUMBERS = ("smallint", "integer", "bigint", "numeric")


@dataclass(frozen=True, slots=True)
class Person:
    """``kind`` is one of identities.KINDS; ``tenants`` are those whose rows are the person's own; ``rank`` is the role
    of a membership, where the person was chosen for that."""

    kind: str
    user: str
    tenants: tuple[str, ...]
    rank: str = ""


def people(evidence: Evidence, name: str, tenancy: Tenancy) -> Iterator[Person]:
    """The people to act as in one tenancy. Raises NotVerified where members or tenants cannot be read."""
    chosen = list(_members(evidence, tenancy) if tenancy.members else _tenants(evidence, tenancy, name))
    closed = _closed(evidence, tenancy)
    found = {(p.kind, p.user, p.tenants): p for p in (*chosen, *_owners(evidence, name, tenancy, chosen))}
    for person in found.values():
        if not closed & set(person.tenants):
            yield person


def active(members: Members, alias: str = "m") -> Statement:
    """The condition under which row ``m`` is a membership that counts today."""
    conditions = [enabled(members, alias)]
    if members.expires:
        ends = column(members.expires, alias)
        conditions.append(statement("({e} is null or {e} > pg_catalog.now())", e=ends))
    return joined(conditions, " and ")


def enabled(members: Members, alias: str = "m") -> Statement:
    """The condition under which row ``m`` is a membership that counts, unless it has expired."""
    user, tenant = column(members.user, alias), column(members.tenant, alias)
    conditions = [statement("{u} is not null and {t} is not null", u=user, t=tenant)]
    if members.active and members.active_values:
        wanted = statement("coalesce({a}::text = any({v}::text[]), false)", a=column(members.active, alias),
                           v=members.active_values)  # fmt: skip
        conditions.append(wanted)
    elif members.active:
        conditions.append(statement("coalesce({a}, false)", a=column(members.active, alias)))
    return joined(conditions, " and ")


def nobody(evidence: Evidence, tenancy: Tenancy) -> str:
    """A user that is in no table, in the spelling of the column that names users."""
    named = [(tenancy.members.table, tenancy.members.user)] if tenancy.members else _user_columns(evidence)
    for name, user in named[:1]:
        table = evidence.catalog.table(name)
        found = table.column(user) if table else None
        if found and found.type.partition("(")[0] in NUMBERS:
            return "-1"
    return NOBODY


def elsewhere(evidence: Evidence, name: str, user: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Of what tenants of the other tenancies with members the user is a member, too."""
    found = []
    for other, tenancy in evidence.contract.tenancies.items():
        if other != name and user and tenancy.members:
            found.append((other, frozenset(own_tenants(evidence, tenancy.members, user))))
    return tuple(found)


def tenant_counts(evidence: Evidence, table: str, tenant: str) -> Counter[str]:
    """Rows of each tenant (as text) in a relation; rows without tenant are counted under ''."""
    question = statement(
        "select coalesce({tenant}::text, ''), pg_catalog.count(*) from {table} as r group by 1",
        tenant=column(tenant), table=Name.of(table),
    )  # fmt: skip
    return Counter(dict(evidence.database.remembered(question, f"counting rows of each tenant in {table}")))


def owned_counts(evidence: Evidence, table: str) -> Counter[str]:
    """As ``tenant_counts``, of a declared relation whose rows are tenants' themselves, or hang on rows that are."""
    promise, tenant = evidence.contract.tables[table], evidence.contract.column_of(table)
    if promise.holds != "child":
        return tenant_counts(evidence, table, tenant)
    question = statement(
        "select coalesce(o.tenant, ''), pg_catalog.count(*) from {table} as r left join ({owners}) as o"
        " on o.key = {own} group by 1",
        table=Name.of(table), own=column(tenant), owners=_of_parents(evidence.contract, promise),
    )  # fmt: skip
    return Counter(dict(evidence.database.remembered(question, f"counting rows of each tenant in {table}")))


def _of_parents(contract: Contract, child: TablePromise) -> Statement:
    """The keys of the rows that a child's may hang on, each once for each of its tenants."""
    parent, tenant = contract.tables[child.parent], column(contract.column_of(child.parent))
    parts = {"key": column(child.parent_key), "table": Name.of(child.parent), "own": tenant}
    if parent.holds != "child":
        return statement("select distinct {key} as key, {own}::text as tenant from {table} as r", **parts)
    return statement(
        "select distinct {key} as key, o.tenant from {table} as r left join ({owners}) as o on o.key = {own}",
        owners=_of_parents(contract, parent), **parts,
    )  # fmt: skip


_PEOPLE = """
with person as (
  select {user}::text as member, pg_catalog.array_agg(distinct {tenant}::text) filter (where {active}) as own,
         pg_catalog.bool_or({enabled}) as enabled
  from {table} as m where {user} is not null group by 1
), sized as (
  select {tenant}::text as tenant, pg_catalog.count(*) as size from {table} as m where {active} group by 1
), kind as (
  select case when own is null then 'former' when pg_catalog.cardinality(own) = 1 then 'one' else 'many' end as kind,
         own is null and enabled as expired, coalesce(own, array[]::text[]) as own,
         pg_catalog.min(member collate "C") as member
  from person group by 1, 2, 3
), ranked as (
  select k.kind, k.member, k.own, pg_catalog.row_number() over (
           partition by k.kind, k.expired order by (select pg_catalog.min(s.size) from sized as s where s.tenant = any(k.own)),
           k.own) as smallest,
         pg_catalog.row_number() over (
           partition by k.kind, k.expired order by (select pg_catalog.max(s.size) from sized as s where s.tenant = any(k.own)) desc,
           k.own) as largest
  from kind as k
)
select kind, member, own from ranked
where smallest <= {half} or largest <= {half}
order by kind, member
"""  # noqa: E501


def _members(evidence: Evidence, tenancy: Tenancy) -> Iterator[Person]:
    members = tenancy.members
    assert members
    parts = {"user": column(members.user, "m"), "tenant": column(members.tenant, "m"),
             "table": Name.of(members.table), "active": active(members), "enabled": enabled(members)}  # fmt: skip
    half = max(1, evidence.contract.limits.tenants // 2)
    question = statement(_PEOPLE, half=half, **parts)
    for kind, user, own in evidence.database.remembered(question, f"choosing members from {members.table}"):
        yield Person(kind, user, tuple(own))
    yield from _ranked(evidence, members)
    if members.users:
        users = Name.of(members.users)
        outsider = statement(
            "select u.{id}::text from {users} as u where not exists"
            " (select from {table} as m where m.{user} = u.{id}) order by 1 limit 1",
            id=Name(users[2:]), users=Name(users[:2]), table=parts["table"], user=Name((members.user,)),
        )  # fmt: skip
        for (user,) in evidence.database.remembered(outsider, f"choosing a user without membership from {users[1]}"):
            yield Person("none", user, ())


def _ranked(evidence: Evidence, members: Members) -> Iterator[Person]:
    """One person of each declared role of members: an administrator of one tenant is nobody in the others."""
    if not members.role:
        return
    question = statement(
        "select {role}::text, pg_catalog.min({user}::text collate \"C\") from {table} as m"
        " where {active} and {role}::text = any({roles}::text[]) group by 1 order by 1",
        role=column(members.role, "m"), user=column(members.user, "m"), table=Name.of(members.table),
        active=active(members), roles=members.roles,
    )  # fmt: skip
    for rank, user in evidence.database.remembered(question, f"choosing members from {members.table}"):
        own = tuple(own_tenants(evidence, members, user))
        yield Person("one" if len(own) == 1 else "many", user, own, rank)


def sole_members(evidence: Evidence, tenancy: Tenancy) -> Callable[[str], str | None]:
    """What tells of a tenant whom to sign in as to be of that tenant and no other: a user, or None where nobody can be,
    or the tenant is closed. Raises NotVerified."""
    closed, members, registry = _closed(evidence, tenancy), tenancy.members, tenancy.registry
    if members:
        question = statement(
            "select s.own, pg_catalog.min(s.member) from (select {user}::text collate \"C\" as member,"
            " pg_catalog.min({tenant}::text) as own from {table} as m where {active} group by 1"
            " having pg_catalog.count(distinct {tenant}) = 1) as s group by 1",
            user=column(members.user, "m"), tenant=column(members.tenant, "m"), table=Name.of(members.table),
            active=active(members),
        )  # fmt: skip
        found: dict[str, str] = dict(evidence.database.remembered(question, f"choosing members from {members.table}"))
        return lambda tenant: None if tenant in closed else found.get(tenant)
    user = (_users(evidence) or [nobody(evidence, tenancy)])[0]
    if registry is None:
        return lambda _: user
    question = statement("select {k}::text from {t} as r", k=column(registry.key), t=Name.of(registry.table))
    known = {tenant for (tenant,) in evidence.database.remembered(question, f"choosing from {registry.table}")} - closed
    return lambda tenant: user if tenant in known else None


def own_tenants(evidence: Evidence, members: Members, user: str) -> list[str]:
    """The tenants of which a user is a member today."""
    question = memberships(members, user)
    return [tenant for (tenant,) in evidence.database.remembered(question, f"choosing members from {members.table}")]


def memberships(members: Members, user: str) -> Statement:
    """The question for the tenants of which a user is a member now."""
    return statement(
        "select distinct {tenant}::text from {table} as m where {member}::text = {user} and {active} order by 1",
        tenant=column(members.tenant, "m"), table=Name.of(members.table), member=column(members.user, "m"),
        user=user, active=active(members),
    )  # fmt: skip


def _tenants(evidence: Evidence, tenancy: Tenancy, name: str) -> Iterator[Person]:
    """Where the session itself carries the tenant: a session for each of some tenants, as somebody who owns rows."""
    sources = [(tenancy.registry.table, tenancy.registry.key)] if tenancy.registry else _tables_of(evidence, name)
    users = _users(evidence) or [nobody(evidence, tenancy)]
    for source, key in sources[:1]:
        question = statement(
            "select {key}::text from {table} as r where {key} is not null group by 1"
            " order by pg_catalog.count(*), 1 limit {limit}",
            key=column(key), table=Name.of(source), limit=evidence.contract.limits.tenants,
        )  # fmt: skip
        rows = evidence.database.remembered(question, f"choosing tenants from {source}")
        for number, (tenant,) in enumerate(rows):
            yield Person("one", users[number % len(users)], (tenant,))


def _tables_of(evidence: Evidence, name: str) -> list[tuple[str, str]]:
    """Relations whose rows carry a tenant of this tenancy and that exist, with the column that does."""
    contract = evidence.contract
    return [
        (table, contract.column_of(table)) for table in contract.tenant_tables()
        if (contract.tables[table].tenancy or next(iter(contract.tenancies))) == name
        and (found := evidence.catalog.table(table)) and found.column(contract.column_of(table))
    ]  # fmt: skip


def _user_columns(evidence: Evidence) -> list[tuple[str, str]]:
    """Relations whose rows belong to users and that exist, with the column that names them."""
    return [
        (name, promise.column) for name, promise in evidence.contract.tables.items()
        if promise.holds == "user" and (found := evidence.catalog.table(name)) and found.column(promise.column)
    ]  # fmt: skip


def _users(evidence: Evidence) -> list[str]:
    """Some users that own rows, of every table whose rows belong to users."""
    found: list[str] = []
    for table, user in _user_columns(evidence):
        question = statement(
            "select {user}::text from {table} as r where {user} is not null group by 1 order by 1 limit {limit}",
            user=column(user), table=Name.of(table), limit=evidence.contract.limits.tenants,
        )  # fmt: skip
        found += [user for (user,) in evidence.database.remembered(question, f"choosing owners from {table}")]
    return list(dict.fromkeys(found))


def _owners(evidence: Evidence, name: str, tenancy: Tenancy, chosen: list[Person]) -> Iterator[Person]:
    """For each table of which nobody who was chosen owns a row, somebody who does."""
    seen = {tenant for person in chosen for tenant in person.tenants}
    for table, tenant in _tables_of(evidence, name):
        with suppress(NotVerified):  # those who look at the table will say why
            owning = {t for t, rows in tenant_counts(evidence, table, tenant).items() if t and rows}
            if owning and not owning & seen:
                for person in _owner(evidence, tenancy, sorted(owning)):
                    seen |= set(person.tenants)
                    yield person


def _owner(evidence: Evidence, tenancy: Tenancy, tenants: list[str]) -> Iterator[Person]:
    """One person with one of these tenants."""
    members = tenancy.members
    if members is None:
        yield Person("one", (_users(evidence) or [nobody(evidence, tenancy)])[0], (tenants[0],))
        return
    question = statement(
        "select pg_catalog.min({user}::text) from {table} as m where {tenant}::text = any({t}::text[]) and {active}",
        user=column(members.user, "m"), table=Name.of(members.table), tenant=column(members.tenant, "m"),
        t=tuple(tenants), active=active(members),
    )  # fmt: skip
    for (user,) in evidence.database.remembered(question, f"choosing members from {members.table}"):
        if user is not None:
            own = own_tenants(evidence, members, user)
            yield Person("one" if len(own) == 1 else "many", user, tuple(own))


def _closed(evidence: Evidence, tenancy: Tenancy) -> set[str]:
    """Tenants that the registry calls inactive: whether their rows are shown is nobody's promise."""
    registry = tenancy.registry
    if registry is None or not registry.active:
        return set()
    question = statement(
        "select {key}::text from {table} as r where not coalesce({active}, false) order by 1",
        key=column(registry.key), table=Name.of(registry.table), active=column(registry.active),
    )  # fmt: skip
    return {tenant for (tenant,) in evidence.database.remembered(question, "looking up closed tenants")}
