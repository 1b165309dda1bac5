"""Writing own rows: what the contract allows works, and changes nothing of anybody else's on the side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pgconform.attacks.bait import Bait, bait, naming_users, shares
from pgconform.attacks.lures import lures
from pgconform.attacks.roads import OWN, Aim, Road
from pgconform.attacks.side import changed_rows
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.database import Outcome
from pgconform.identities import Identity, identities
from pgconform.model import Nothing, NotVerified
from pgconform.statements import Statement

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
            if (
                not own
                or not allowed
                or identity.kind == "posing"
                or (identity.kind in seen and not evidence.effort.examples)
            ):
                continue
            seen.add(identity.kind)
            for number in own if evidence.effort.examples else own[:1]:
                made += 1
                yield write_own(evidence, given, road, identity, number)
    if not made:
        raise Nothing(f"nobody may write {table}, or has rows there")


def write_own(evidence: Evidence, given: Bait, road: Road, who: Identity, number: int) -> Write:
    """One write of an own row. Raises NotVerified where something else than the privileges stood in the way."""
    author = (naming_users(evidence, given.table), who.user)
    aim = Aim(given, who.role, number, number, evidence.privileges, evidence.catalog.server.version, author)
    command = road.build(aim)
    assert command is not None, "plain writes are possible everywhere"
    outcome = evidence.drills.attempt(who.role, who.settings, command)
    if not outcome.passed and outcome.state.startswith(_OTHER):
        raise NotVerified(f"{who} could not {road.name} an own row of {given}: {outcome.said}")
    return Write(road, who, command, outcome)


def strays(evidence: Evidence, table: Table) -> Iterator[tuple[Write, list[str]]]:
    """Writes of own rows after which other relations' foreign rows were not what they were, with those relations.

    An own row that names somebody else's in a free column is an own row, too.
    """
    done: set[str] = set()
    for write in writes(evidence, table):
        if write.road.name in done or not write.outcome.rows:
            continue
        done.add(write.road.name)
        named = lures(evidence, table, write.identity) if write.road.name == "insert" else ()
        for command in (write.command, *named):
            if others := changed_rows(evidence, write.identity, command):
                yield replace(write, command=command), others
                break
