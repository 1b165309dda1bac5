"""Who to act as: the kinds of sessions that a client can have, chosen from the data without naming anybody.

An identity's label never holds a user or tenant; its claims do, and go nowhere but into the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.contract import Contract, Session
from pgconform.contract_agreement import mentions
from pgconform.database import Database, claims_settings
from pgconform.model import NotVerified
from pgconform.names import quote
from pgconform.people import Person, elsewhere, nobody, people, sole_members
from pgconform.posing import poses

# How a label reads, for each kind of membership.
KINDS = {
    "one": "member of one tenant",
    "many": "member of several tenants",
    "former": "deactivated or expired member",
    "none": "signed in without membership",
    "unknown": "signed in as nobody that is known",
    "bare": "signed in without a tenant",
    "anonymous": "anonymous",
    "posing": "member who sets what sessions may set",
    "malformed": "signed in by a malformed token",
}
# What says most comes first: that anybody can do it.
SIMPLEST = ("anonymous", "unknown", "none", "bare", "former", "one", "many", "posing", "malformed")


@dataclass(frozen=True, slots=True)
class Identity:
    """One session to try. ``tenants`` are the tenants (as text) of ``tenancy`` whose rows are its own; ``also`` are
    those of other tenancies, where the same user is a member there, too; ``rank`` is the role of the membership;
    ``after`` is the tenant that the session says it belongs to, by what it may say."""

    kind: str
    number: int
    tenancy: str
    tenants: frozenset[str]
    user: str
    role: str
    settings: tuple[tuple[str, str], ...]
    also: tuple[tuple[str, frozenset[str]], ...] = ()
    rank: str = ""
    after: str = ""

    def __str__(self) -> str:
        label = KINDS[self.kind] + (f" ({self.rank})" if self.rank else "")
        return f"{label} #{self.number}" if self.number else label

    def tenants_of(self, tenancy: str) -> frozenset[str]:
        """The tenants of one tenancy whose rows are its own."""
        return self.tenants if tenancy == self.tenancy else dict(self.also).get(tenancy, frozenset())


def identities(evidence: Evidence) -> tuple[Identity, ...]:
    """Anonymous, and of each tenancy: members of one and of several tenants, of every rank, former members, outsiders,
    unknown users, and members who say to be of another tenant.

    About ``limits.tenants`` of each kind, those of the largest and the smallest tenants first; more where some table
    would otherwise have rows of nobody who was chosen. Raises NotVerified where the tables of members or tenants
    cannot be read.
    """
    if evidence.database not in _KNOWN:
        _KNOWN[evidence.database] = tuple(_identities(evidence))
    return _KNOWN[evidence.database]


_KNOWN: WeakKeyDictionary[Database, tuple[Identity, ...]] = WeakKeyDictionary()
_FURTHER: WeakKeyDictionary[Database, dict[tuple[str, str], Identity]] = WeakKeyDictionary()


def members_of(evidence: Evidence, name: str) -> Callable[[str], Identity | None]:
    """What tells of a tenant of that tenancy a member of it and of no other: one of ``identities`` or a further one,
    None where nobody is or the tenant is closed. Raises NotVerified."""
    ones = [i for i in identities(evidence) if i.kind == "one" and i.tenancy == name]
    known = {tenant: one for one in reversed(ones) for tenant in one.tenants}
    further = _FURTHER.setdefault(evidence.database, {})
    tenancy = evidence.contract.tenancies[name]
    session, user_of = evidence.contract.sessions[tenancy.session], sole_members(evidence, tenancy)
    there = session.role in {role.name for role in evidence.catalog.roles}

    def member(tenant: str) -> Identity | None:
        if tenant in known or (name, tenant) in further:
            return known.get(tenant) or further[name, tenant]
        if (user := user_of(tenant)) is None or not there:
            return None
        number = 1 + len(further) + max((one.number for one in ones), default=0)
        person, also = Person("one", user, (tenant,)), elsewhere(evidence, name, user)
        further[name, tenant] = _identity(evidence.contract, session, "one", number, name, person, also)
        return further[name, tenant]

    return member


def represented(evidence: Evidence, table: Table) -> None:
    """Raises NotVerified where a client role can reach the relation, and nobody signs in with that role."""
    signed_in = {identity.role for identity in identities(evidence)}
    for role in evidence.contract.roles.clients:
        if role not in signed_in and table in evidence.privileges.reached((role,)):
            raise NotVerified(
                f"role {quote(role)} can reach {table}, and no session signs in with it: declare one under"
                f' [sessions.NAME], with role = "{role}", and the claims or settings that say who calls'
            )


def _identities(evidence: Evidence) -> Iterator[Identity]:
    contract = evidence.contract
    there = {role.name for role in evidence.catalog.roles}  # that one is not there is another check's finding
    used = {tenancy.session for tenancy in contract.tenancies.values()}
    spare = [session for name, session in contract.sessions.items() if name not in used and session.role in there]
    nobodys = [session for session in spare if not _says(session, "{user}") and not _says(session, "{tenant}")]
    for number, session in enumerate(nobodys):
        number += number > 0  # the first has none
        yield _identity(contract, session, "anonymous", number, "", Person("anonymous", "", ()))
    for name, tenancy in contract.tenancies.items():
        blank = "{user}" if tenancy.members else "{tenant}"
        sessions = [contract.sessions[tenancy.session], *(session for session in spare if _says(session, blank))]
        for session in sessions:
            if session.role in there:
                yield from _of_tenancy(evidence, name, session)


def _of_tenancy(evidence: Evidence, name: str, session: Session) -> Iterator[Identity]:
    """The people of one tenancy, as they sign in by one kind of session."""
    contract, tenancy = evidence.contract, evidence.contract.tenancies[name]
    counted: dict[str, int] = {}
    members: list[Identity] = []
    for person in people(evidence, name, tenancy):
        counted[person.kind] = counted.get(person.kind, 0) + 1
        also = elsewhere(evidence, name, person.user)
        members.append(_identity(contract, session, person.kind, counted[person.kind], name, person, also))
    yield from members
    kind = "unknown" if tenancy.members else "bare"
    yield _identity(contract, session, kind, 1, name, Person(kind, nobody(evidence, tenancy), ()))
    yield from _posing(evidence, session, members)


def _says(session: Session, blank: str) -> bool:
    return mentions([session.claims, session.settings], blank)


def _posing(evidence: Evidence, session: Session, members: list[Identity]) -> Iterator[Identity]:
    """The first member of one tenant, who says to be of another, or more than it is, wherever a client may say so."""
    contract = evidence.contract
    for me in [m for m in members if m.kind == "one"][:1]:
        others = [m for m in members if m.tenants and not m.tenants & me.tenants]
        tenants, users = [min(m.tenants) for m in others], [m.user for m in others if m.user]
        claims = _filled(session.claims, {"user": me.user, "tenant": min(me.tenants)})
        ends = slice(None, None, max(1, len(tenants) - 1))  # of the first and the last
        said = poses(evidence.catalog, contract, claims, tenants[ends], users[:1])
        for number, (how, tenant, carried, chosen) in enumerate(said, 1):
            settings = dict(me.settings) | claims_settings(contract.claims_setting, carried, chosen)
            yield replace(me, kind="posing", number=number, settings=tuple(settings.items()), rank=how, after=tenant)


def _identity(
    contract: Contract, session: Session, kind: str, number: int, tenancy: str, person: Person,
    also: tuple[tuple[str, frozenset[str]], ...] = (),
) -> Identity:  # fmt: skip
    blanks = {"user": person.user, "tenant": min(person.tenants, default="")}
    settings = claims_settings(
        contract.claims_setting, _filled(session.claims, blanks), _filled(session.settings, blanks)
    )
    return Identity(
        kind,
        number,
        tenancy,
        frozenset(person.tenants),
        person.user,
        session.role,
        tuple(settings.items()),
        also,
        person.rank,
    )


def _filled(value: Any, blanks: dict[str, str]) -> Any:
    """The value with its blanks filled in, at any depth; a key whose blank nothing fills is left out.

    ``"{tenant:number}"`` and ``"{user:number}"`` become numbers, as some tokens carry them.
    """
    if isinstance(value, dict):
        return {k: _filled(item, blanks) for k, item in value.items() if not _unfilled(item, blanks)}
    if isinstance(value, list):
        return [_filled(item, blanks) for item in value if not _unfilled(item, blanks)]
    if isinstance(value, str):
        for blank, text in blanks.items():
            if value == f"{{{blank}:number}}":
                return int(text) if text.lstrip("-").isdigit() else text
            value = value.replace(f"{{{blank}}}", text)
    return value


def _unfilled(value: Any, blanks: dict[str, str]) -> bool:
    marks = [mark for blank, text in blanks.items() if not text for mark in (f"{{{blank}}}", f"{{{blank}:number}}")]
    return isinstance(value, str) and any(mark in value for mark in marks)
