"""Writing own rows: what the contract allows works, and changes nothing of anybody else's on the side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.attacks.bait import Bait, bait, shares
from pgconform.attacks.roads import OWN, Aim, Road
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.database import Outcome
from pgconform.identities import Identity, identities
from pgconform.model import Nothing, NotVerified
from pgconform.names import qualified, split
from pgconform.probes.visibility import belongs
from pgconform.statements import Name, Statement, joined, statement
from pgconform.subjects import promise_of

# Rows that this transaction has written so far, undone or not, by relation.
_WRITTEN = statement(
    "select s.relid::pg_catalog.regclass::text, s.n_tup_ins + s.n_tup_upd + s.n_tup_del"
    " from pg_catalog.pg_stat_xact_user_tables as s where s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 order by 1"
)

# The row was wrong (22), a rule of the application refused it (P0), or the server was busy (40, 53, 55P03, 57).
_OTHER = ("22", "P0", "40", "53", "55P03", "57")


@dataclass(frozen=True, slots=True)
class Write:
    """One session's write of an own row, and what came of it."""

    road: Road
    identity: Identity
    command: Statement
    outcome: Outcome

    @property
    def refused(self) -> bool:
        """True where privileges, policies or the relation itself stood in the way."""
        return not self.outcome.passed


def writes(evidence: Evidence, table: Table) -> Iterator[Write]:
    """Every write of own rows that the contract allows: by one member of each kind, or by all with more effort.

    Raises Nothing where nobody may write or has rows, NotVerified where something else stood in the way.
    """
    given = bait(evidence, table)
    made = 0
    for road in OWN:
        seen: set[str] = set()
        for identity in identities(evidence):
            own = shares(evidence, given, identity)[0]
            allowed = evidence.contract.scope(given.declared, identity.role, road.commands[0]) != "none"
            held = {h.privilege.lower() for h in evidence.privileges.on(identity.role, table)}
            allowed = allowed and {"select", road.commands[0]} <= held  # what is not granted is another check's finding
            if not own or not allowed or (identity.kind in seen and not evidence.effort.examples):
                continue
            seen.add(identity.kind)
            for number in own if evidence.effort.examples else own[:1]:
                made += 1
                yield write_own(evidence, given, road, identity, number)
    if not made:
        raise Nothing(f"nobody may write {table}, or has rows there")


def write_own(evidence: Evidence, given: Bait, road: Road, who: Identity, number: int) -> Write:
    """One write of an own row. Raises NotVerified where something else than the privileges stood in the way."""
    author = (_naming_users(evidence, given.table), who.user)
    aim = Aim(given, who.role, number, number, evidence.privileges, evidence.catalog.server.version, author)
    command = road.build(aim)
    assert command is not None, "plain writes are possible everywhere"
    outcome = evidence.drills.attempt(who.role, who.settings, command, after=_WRITTEN)
    if not outcome.passed and outcome.state.startswith(_OTHER):
        raise NotVerified(f"{who} could not {road.name} an own row of {given}: {outcome.said}")
    return Write(road, who, command, outcome)


def _naming_users(evidence: Evidence, table: Table) -> frozenset[str]:
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


def strays(evidence: Evidence, table: Table) -> Iterator[tuple[Write, list[str]]]:
    """Writes of own rows after which other relations' foreign rows were not what they were, with those relations."""
    given = bait(evidence, table)
    done: set[str] = set()
    for write in writes(evidence, table):
        if write.road.name in done or not write.outcome.rows:
            continue
        done.add(write.road.name)
        before: dict[str, int] = dict(evidence.drills.rows(_WRITTEN, "counting writes"))
        again = evidence.drills.attempt(write.identity.role, write.identity.settings, write.command, after=_WRITTEN)
        ours = {str(given.copy[1]), str(table)}
        changed = [name for name, rows in again.after if rows > before.get(name, 0) and name not in ours]
        if others := sorted(_foreign(evidence, changed, write)):
            yield write, others


def _foreign(evidence: Evidence, changed: list[str], write: Write) -> Iterator[str]:
    """Of relations that a write changed those in which it changed somebody else's rows."""
    known = {str(t): t for t in evidence.catalog.tables}
    wanted = [name for name in changed if name in known and _holder(evidence, known[name])]
    if not wanted:
        return
    question = joined([_fingerprint(evidence, known[name], write.identity) for name in wanted], " union all ")
    before: dict[str, str] = dict(evidence.drills.rows(question, "looking at foreign rows"))
    again = evidence.drills.attempt(write.identity.role, write.identity.settings, write.command, after=question)
    if again.state:
        raise NotVerified(f"while looking at foreign rows after a write: {again.said}")
    yield from (name for name, seen in again.after if before[name] != seen)


def _holder(evidence: Evidence, table: Table) -> str:
    """The contract's name of a relation whose rows belong to somebody; '' for others."""
    promise = promise_of(evidence.catalog, evidence.contract, table)
    if promise is None or promise.holds in ("shared", "service"):
        return ""
    return next(name for name, p in evidence.contract.tables.items() if p is promise)


def _fingerprint(evidence: Evidence, table: Table, who: Identity) -> Statement:
    """One row: the relation, and a number that changes with any of the rows that are not the identity's."""
    return statement(
        "select {name}::text, coalesce(pg_catalog.sum(pg_catalog.hashtextextended(r::text, 0)::numeric), 0)::text"
        " || ' ' || pg_catalog.count(*)::text from {t} as r where not {own}",
        name=str(table), t=Name.of(str(table)), own=belongs(evidence, _holder(evidence, table), who),
    )  # fmt: skip
