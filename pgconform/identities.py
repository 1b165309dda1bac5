"""Who to act as: the kinds of sessions that a client can have, chosen from the data without naming anybody.

An identity's label never holds a user or tenant; its claims do, and go nowhere but into the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgconform.checks import Evidence
from pgconform.contract import Contract, Members, Session, Tenancy
from pgconform.database import claims_settings
from pgconform.statements import Name, Statement, column, joined, statement

NOBODY = "00000000-0000-4000-8000-000000000000"  # a user that is in no table

# How a label reads, for each kind of membership.
KINDS = {
    "one": "member of one tenant",
    "many": "member of several tenants",
    "former": "deactivated or expired member",
    "none": "signed in without membership",
    "anonymous": "anonymous",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """One session to try. ``tenants`` are the tenants (as text) whose rows are its own."""

    kind: str
    number: int
    tenancy: str
    tenants: frozenset[str]
    user: str
    role: str
    settings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        label = KINDS[self.kind]
        return f"{label} #{self.number}" if self.number else label


def identities(evidence: Evidence) -> tuple[Identity, ...]:
    """Anonymous, and of each tenancy: members of one and of several tenants, former members, outsiders.

    At most ``limits.tenants`` of each kind, those of the largest and the smallest tenants first. Raises
    NotVerified where the tables of members or tenants cannot be read.
    """
    found: list[Identity] = []
    contract = evidence.contract
    if session := contract.sessions.get("anonymous"):
        found.append(_identity(contract, session, "anonymous", 0, "", frozenset(), ""))
    for name, tenancy in contract.tenancies.items():
        session = contract.sessions[tenancy.session]
        people = _members(evidence, tenancy) if tenancy.members else _tenants(evidence, tenancy)
        counted: dict[str, int] = {}
        for kind, user, tenants in people:
            counted[kind] = counted.get(kind, 0) + 1
            found.append(_identity(contract, session, kind, counted[kind], name, frozenset(tenants), user))
        if tenancy.members and "none" not in counted:
            found.append(_identity(contract, session, "none", 1, name, frozenset(), NOBODY))
    return tuple(found)


def _identity(
    contract: Contract, session: Session, kind: str, number: int, tenancy: str, tenants: frozenset[str], user: str
) -> Identity:
    blanks = {"{user}": user, "{tenant}": min(tenants, default="")}
    settings = claims_settings(
        contract.claims_setting, _filled(session.claims, blanks), _filled(session.settings, blanks)
    )
    return Identity(kind, number, tenancy, tenants, user, session.role, tuple(settings.items()))


def _filled(value: Any, blanks: dict[str, str]) -> Any:
    """The value with its blanks filled in, at any depth."""
    if isinstance(value, dict):
        return {key: _filled(item, blanks) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, blanks) for item in value]
    if isinstance(value, str):
        for blank, text in blanks.items():
            value = value.replace(blank, text)
    return value


def active(members: Members, alias: str = "m") -> Statement:
    """The condition under which row ``m`` is a membership that counts today."""
    user, tenant = column(members.user, alias), column(members.tenant, alias)
    conditions = [statement("{u} is not null and {t} is not null", u=user, t=tenant)]
    if members.active:
        conditions.append(statement("coalesce({a}, false)", a=column(members.active, alias)))
    if members.expires:
        ends = column(members.expires, alias)
        conditions.append(statement("({e} is null or {e} > pg_catalog.now())", e=ends))
    return joined(conditions, " and ")


_PEOPLE = """
with person as (
  select {user}::text as member, pg_catalog.array_agg(distinct {tenant}::text) filter (where {active}) as own
  from {table} as m where {user} is not null group by 1
), sized as (
  select {tenant}::text as tenant, pg_catalog.count(*) as size from {table} as m where {active} group by 1
), kind as (
  select case when own is null then 'former' when pg_catalog.cardinality(own) = 1 then 'one' else 'many' end as kind,
         coalesce(own, array[]::text[]) as own, pg_catalog.min(member collate "C") as member
  from person group by 1, 2
), ranked as (
  select k.kind, k.member, k.own, pg_catalog.row_number() over (
           partition by k.kind order by (select pg_catalog.min(s.size) from sized as s where s.tenant = any(k.own)),
           k.own) as smallest,
         pg_catalog.row_number() over (
           partition by k.kind order by (select pg_catalog.max(s.size) from sized as s where s.tenant = any(k.own)) desc,
           k.own) as largest
  from kind as k
)
select kind, member, own from ranked
where smallest <= {half} or largest <= {half}
order by kind, member
"""  # noqa: E501


def _members(evidence: Evidence, tenancy: Tenancy) -> Iterator[tuple[str, str, list[str]]]:
    members = tenancy.members
    assert members
    parts = {"user": column(members.user, "m"), "tenant": column(members.tenant, "m"),
             "table": Name.of(members.table), "active": active(members)}  # fmt: skip
    half = max(1, evidence.contract.limits.tenants // 2)
    question = statement(_PEOPLE, half=half, **parts)
    for kind, user, own in evidence.database.remembered(question, f"choosing members from {members.table}"):
        yield kind, user, own
    if members.users:
        users = Name.of(members.users)
        outsider = statement(
            "select u.{id}::text from {users} as u where not exists"
            " (select from {table} as m where m.{user} = u.{id}) order by 1 limit 1",
            id=Name(users[2:]), users=Name(users[:2]), table=parts["table"], user=Name((members.user,)),
        )  # fmt: skip
        for (user,) in evidence.database.remembered(outsider, f"choosing a user without membership from {users[1]}"):
            yield "none", user, []


def _tenants(evidence: Evidence, tenancy: Tenancy) -> Iterator[tuple[str, str, list[str]]]:
    """Where the session itself carries the tenant: one session for each of some tenants."""
    sources = [tenancy.registry.table] if tenancy.registry else [
        name for name in evidence.contract.tenant_tables()
        if evidence.contract.tenancy_of(evidence.contract.tables[name]) == tenancy and evidence.catalog.table(name)
    ]  # fmt: skip
    for source in sources[:1]:
        key = tenancy.registry.key if tenancy.registry else evidence.contract.column_of(source)
        question = statement(
            "select {key}::text from {table} as r where {key} is not null group by 1"
            " order by pg_catalog.count(*), 1 limit {limit}",
            key=column(key), table=Name.of(source), limit=evidence.contract.limits.tenants,
        )  # fmt: skip
        for (tenant,) in evidence.database.remembered(question, f"choosing tenants from {source}"):
            yield "one", NOBODY, [tenant]
