"""Writing own rows: what the contract allows works, and changes nothing of anybody else's on the side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pgconform.attacks.attempts import own_rows
from pgconform.attacks.bait import Bait, bait, naming_users, shares
from pgconform.attacks.lures import lures
from pgconform.attacks.roads import OWN, Aim, Road
from pgconform.attacks.side import changed_rows, culprits
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.database import Outcome
from pgconform.identities import Identity, identities
from pgconform.model import Nothing, NotVerified
from pgconform.names import remark
from pgconform.statements import Statement, statement

# The row was wrong (22), a rule of the application refused it (P0), or the server was busy (40, 53, 55P03, 57).
_OTHER = ("22", "P0", "40", "53", "55P03", "57")
# A table with rules has no ON CONFLICT and no MERGE (0A), nor one with a key of another kind (42P10).
_UNKNOWN = ("0A", "21", "42P10")


@dataclass(frozen=True, slots=True)
class Write:
    """One session's write of an own row, and what came of it."""

    road: Road
    identity: Identity
    command: Statement
    outcome: Outcome
    wanted: int = 1  # rows that must be touched

    @property
    def refused(self) -> bool:
        """True where privileges, policies or the relation itself stood in the way of a row."""
        return not self.outcome.passed or (not self.outcome.state and self.outcome.rows < self.wanted)

    def __str__(self) -> str:
        why = f": {self.outcome.said}" if self.outcome.state else ""
        if self.outcome.rows and not why:
            why = f": {self.outcome.rows} of {self.wanted} were touched"
        return f"{self.identity} cannot {self.road.name} own rows{why}"


def writes(evidence: Evidence, table: Table, roads: tuple[Road, ...] = OWN) -> Iterator[Write]:
    """Every write of own rows that the contract allows: by one member of each kind, or by all with more effort.

    Raises Nothing where nobody may write or has rows, NotVerified where something else stood in the way.
    """
    given = bait(evidence, table)
    made = 0
    possible = roads if table.kind in ("table", "partitioned") else OWN
    if given.declared in {t.members.table for t in evidence.contract.tenancies.values() if t.members}:
        possible = tuple(r for r in possible if not {"insert", "update"} & {*r.commands})  # its rank decides
    for road in possible:
        seen: set[tuple[str, str]] = set()
        for identity in identities(evidence):
            own = shares(evidence, given, identity, True)[0]
            scopes = {evidence.contract.scope(given.declared, identity.role, command) for command in road.commands}
            held = {h.privilege.lower() for h in evidence.privileges.on(identity.role, table)}
            # What is not granted is another check's finding.
            allowed = "none" not in scopes and {"select", *road.commands} <= held
            if (
                not own
                or not allowed
                or identity.kind == "posing"
                or ((identity.role, identity.kind) in seen and not evidence.effort.examples)
            ):
                continue
            seen.add((identity.role, identity.kind))
            for number in own if evidence.effort.examples and not road.every else own[:1]:
                made += 1
                if road in OWN:
                    yield write_own(evidence, given, road, identity, number)
                elif write := _write_too(evidence, given, road, identity, number):
                    yield write
    if not made:
        raise Nothing(f"nobody may write {table}, or has rows there")


def write_own(evidence: Evidence, given: Bait, road: Road, who: Identity, number: int) -> Write:
    """One write of an own row. Raises NotVerified where something else than the privileges stood in the way."""
    command = road.build(_aim(evidence, given, who, number))
    assert command is not None, "plain writes are possible everywhere"
    outcome = evidence.drills.attempt(who.role, who.settings, command)
    if not outcome.passed and outcome.state.startswith(_OTHER):
        raise NotVerified(f"{who} could not {road.name} an own row of {given}: {outcome.said}")
    return Write(road, who, command, outcome)


def _write_too(evidence: Evidence, given: Bait, road: Road, who: Identity, number: int) -> Write | None:
    """A write by another command, or of all own rows; None where something else than the privileges may stand in the
    way: of one row of many, or of a command that not every table knows."""
    command = road.build(_aim(evidence, given, who, number))
    if command is None:
        return None
    outcome = evidence.drills.attempt(who.role, who.settings, command)
    if not outcome.passed and outcome.state.startswith((*_OTHER, *_UNKNOWN)):
        return None
    return Write(road, who, command, outcome, own_rows(evidence, given, who, road, True) if road.every else 1)


def _aim(evidence: Evidence, given: Bait, who: Identity, number: int) -> Aim:
    author = (naming_users(evidence, given.table), who.user)
    return Aim(given, who.role, number, number, evidence.privileges, evidence.catalog.server.version, author)


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


def mend(evidence: Evidence, table: Table, stray: Write) -> str:
    """SQL after which the write changes nobody else's rows, and own rows can be written as before: tried here, one
    culprit after another, then all. Where there is none, it is for people to say what should be written there."""
    lines = culprits(evidence, table)
    if not lines:
        return "-- it is neither a rule nor a definer's trigger: look at its triggers"
    could = _possible(evidence, table)
    for chosen in dict.fromkeys([*((line,) for line in lines), tuple(lines)]):
        why = _left(evidence, table, stray, chosen, could)
        if not why:
            return "\n".join(chosen)
    return "\n".join(
        [
            remark(f"for people to decide, since after {' '.join(lines)} {why}"),
            "-- let what runs on the side keep its rights, and write only what belongs to the row that is written",
        ]
    )


def _possible(evidence: Evidence, table: Table) -> dict[tuple[str, str], str]:
    """Each write of own rows by each session, and what refuses it; '' where nothing does."""
    return {(w.road.name, str(w.identity)): str(w) if w.refused else "" for w in writes(evidence, table)}


def _left(
    evidence: Evidence, table: Table, stray: Write, lines: Iterable[str], could: dict[tuple[str, str], str]
) -> str:
    """What is still wrong, or newly, once the SQL was run; '' where nothing is. All of it is undone."""
    drills = evidence.drills
    drills.send([statement("savepoint mending")])
    try:
        drills.send([statement(line.replace("{", "{{").replace("}", "}}")) for line in lines])
        refused = [told for key, told in _possible(evidence, table).items() if told and not could.get(key)]
        others = () if refused else changed_rows(evidence, stray.identity, stray.command)
        return refused[0] if refused else f"rows of {', '.join(others)} are changed still" if others else ""
    except (Nothing, NotVerified) as error:
        return str(error)
    finally:
        drills.send([statement("rollback to savepoint mending"), statement("release savepoint mending")])
