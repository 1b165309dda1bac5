"""Memberships that a session gives itself: in a tenant that it does not belong to, again, or of a higher rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pgconform.attacks.attempts import Breach
from pgconform.attacks.bait import Bait, bait, row
from pgconform.attacks.roads import NOBODY, Aim, Road, renewed
from pgconform.checks import Evidence
from pgconform.contract import Command, Members, Tenancy
from pgconform.database import Outcome
from pgconform.identities import SIMPLEST, Identity, identities
from pgconform.model import Nothing
from pgconform.people import active
from pgconform.statements import Name, Statement, column, joined, statement

_KINDS = ("unknown", "none", "former", "one", "many")  # sessions that say who they are, and nothing else
_TRIED = 6  # tenants for each role
_TENANTS = 2  # into which somebody must get: one may be invited into a single one


@dataclass(frozen=True, slots=True)
class _Roster:
    """The table of members of one tenancy, and rows of it that count, by role: number and tenant."""

    evidence: Evidence
    given: Bait
    name: str
    members: Members
    rows: dict[str, list[tuple[int, str]]]

    def tried(
        self, who: Identity, command: Statement, numbers: tuple[int, ...], told: tuple[str, str]
    ) -> Breach | None:
        """The attempt, where afterwards the session has a membership that it had not, or only a constraint stopped
        it: what a trigger puts right is none."""
        before, question = _held(self, who.user)
        outcome = self.evidence.drills.attempt(who.role, who.settings, command, after=question)
        gained = not outcome.state and set(outcome.after) - before
        if gained or (outcome.state and outcome.passed):
            return Breach(_road(*told), who, command, outcome, self.given, numbers)
        return None

    def table(self) -> Name:
        return Name.of(str(self.given.table))


def self_made(evidence: Evidence, tenancy: Tenancy) -> Iterator[Breach]:
    """For each way to come by a membership the first session that could. Raises Nothing or NotVerified."""
    members, name = tenancy.members, next(n for n, t in evidence.contract.tenancies.items() if t is tenancy)
    assert members, "a tenancy with members"
    table = evidence.catalog.table(members.table)
    assert table, "that is there"
    given = bait(evidence, table)
    question = statement(
        "select {role}, m.pgc_row, {tenant}::text from {copy} as m where {active} order by 1, 2",
        role=_rank(members), tenant=column(members.tenant, "m"), copy=given.copy, active=active(members),
    )  # fmt: skip
    found = evidence.drills.rows(question, f"looking at memberships of {given}")
    rows = {role: [(n, t) for _, n, t in group] for role, group in groupby(found, key=lambda r: str(r[0]))}
    roster = _Roster(evidence, given, name, members, rows)
    people = sorted(_people(evidence, name), key=lambda i: SIMPLEST.index(i.kind))
    if not people or not rows:
        raise Nothing(f"nobody is kept from a membership in {table}")
    for way in (_joins, _moves, _returns, _promotes):
        if breach := next(filter(None, (way(roster, who) for who in people)), None):
            yield breach


def _people(evidence: Evidence, name: str) -> list[Identity]:
    """One session of each kind, rank and role; with more effort all of them."""
    known = [i for i in identities(evidence) if i.kind in _KINDS and i.tenancy == name and i.user]
    return known if evidence.effort.examples else [*{(i.role, i.kind, i.rank): i for i in known}.values()]


def _joins(roster: _Roster, who: Identity) -> Breach | None:
    """A row of its own in tenants of others, as each role in turn."""
    breach: Breach | None = None
    into: set[str] = set()
    aim = Aim(roster.given, who.role, 0, 0, roster.evidence.privileges, roster.evidence.catalog.server.version, NOBODY)
    fresh = renewed(roster.given.table, (roster.members.user, roster.members.tenant))
    fresh[roster.members.user] = statement("{user}", user=who.user)
    listed = [c for c in aim.may("INSERT") if c.name not in fresh or fresh[c.name] is not None]
    names = joined(Name((c.name,)) for c in listed)
    values = joined(fresh.get(c.name) or column(c.name, "b") for c in listed)
    for rows in roster.rows.values():
        theirs = {tenant: number for number, tenant in rows if tenant not in who.tenants_of(roster.name)}
        for tenant, number in [*theirs.items()][:_TRIED]:
            command = statement(
                "insert into {t} ({names}) select {values} from {copy} as b where {row}",
                t=roster.table(), names=names, values=values, copy=roster.given.copy, row=row(number),
            )  # fmt: skip
            told = ("insert", "join a tenant that it does not belong to, by insert")
            if found := roster.tried(who, command, (number,), told):
                breach, into = breach or found, into | {tenant}
            if breach and len(into) >= min(_TENANTS, len(theirs)):
                return breach
    return None


def _moves(roster: _Roster, who: Identity) -> Breach | None:
    """Its membership moved to a tenant of others."""
    theirs = [(n, t) for rows in roster.rows.values() for n, t in rows if t not in who.tenants_of(roster.name)]
    if not theirs:
        return None
    number, tenant = theirs[0][0], column(roster.members.tenant, "b")
    value = statement("(select {c} from {copy} as b where {r})", c=tenant, copy=roster.given.copy, r=row(number))
    told = ("move", "move its membership to a tenant that it does not belong to")
    return _changed(roster, who, roster.members.tenant, value, (number,), told)


def _returns(roster: _Roster, who: Identity) -> Breach | None:
    """A membership that has ended made to count again."""
    members = roster.members
    values = {members.active: statement("{v}", v=members.active_values[0]) if members.active_values else _TRUE,
              members.expires: _LATER}  # fmt: skip
    for name, value in values.items():
        told = ("return", "make a membership count that has ended")
        if name and who.kind == "former" and (found := _changed(roster, who, name, value, (), told)):
            return found
    return None


_TRUE = statement("true")
_LATER = statement("pg_catalog.now() + interval '1 year'")


def _promotes(roster: _Roster, who: Identity) -> Breach | None:
    """Its membership given the role that administers, or the first of those that the contract lists."""
    members = roster.members
    top = members.admin or next(iter(members.roles), "")
    upper = {top, *members.roles[: members.roles.index(top) if top in members.roles else 0]}
    ranks = {rank for _, rank in _held(roster, who.user)[0]}
    if not members.role or not top or not ranks or ranks & upper:
        return None
    told = ("promote", f"make itself {top} of its tenant")
    return _changed(roster, who, members.role, statement("{v}", v=top), (), told)


def _changed(
    roster: _Roster, who: Identity, name: str, value: Statement, numbers: tuple[int, ...], told: tuple[str, str]
) -> Breach | None:
    """One column of its own memberships written; then of whatever it can reach, which reads nothing of the table."""
    mine = statement(" where {user}::text = {who}", user=column(roster.members.user, "t"), who=who.user)
    for where in (mine, statement("")):
        command = statement(
            "update {t} as t set {c} = {value}{where}", t=roster.table(), c=Name((name,)), value=value, where=where
        )
        if found := roster.tried(who, command, numbers, told):
            return found
    return None


def _held(roster: _Roster, user: str) -> tuple[set[tuple[str, str]], Statement]:
    """Tenants and roles of a user's memberships that count now, and the question for them."""
    members = roster.members
    question = statement(
        "select {tenant}::text, {role} from {t} as m where {member}::text = {user} and {active} order by 1, 2",
        tenant=column(members.tenant, "m"), role=_rank(members), t=roster.table(),
        member=column(members.user, "m"), user=user, active=active(members),
    )  # fmt: skip
    rows = roster.evidence.drills.remembered(question, f"looking up memberships in {roster.given}")
    return {(tenant, rank) for tenant, rank in rows}, question


def _rank(members: Members) -> Statement:
    return statement("coalesce({c}::text, '')", c=column(members.role, "m")) if members.role else statement("''::text")


def _road(name: str, words: str) -> Road:
    commands: tuple[Command, ...] = ("insert",) if name == "insert" else ("update",)
    return Road(name, words, commands, lambda _: None)


def told(breach: Breach) -> str:
    """What a report says of it."""
    outcome: Outcome = breach.outcome
    stopped = f" (stopped only by {outcome.said})" if outcome.state else ""
    return f"{breach.identity} could {breach.road.words}{stopped}"
