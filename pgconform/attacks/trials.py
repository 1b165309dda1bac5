"""What the sessions of one role see, and can do, with their own rows of one relation and with those of others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from pgconform.attacks.bait import Bait, bait, shares
from pgconform.attacks.own import write_own
from pgconform.attacks.roads import OWN, READS, WRITES, Aim, Road
from pgconform.attacks.stopped import passes_beyond
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.contract import Command, TablePromise
from pgconform.database import Outcome
from pgconform.identities import Identity, identities
from pgconform.model import Nothing, NotVerified
from pgconform.probes.visibility import belongs, sights
from pgconform.statements import Name, Statement, statement

WIDE = ("shared", "all")
# What may be observed beside the contract's own words.
FOREIGN = "foreign"  # rows of others pass, own ones do not
SOME = "some"  # some of the rows that should pass
AT_MOST_OWN = "at most own"  # granted, and rows of others are refused; no session of the role owns a row
UNTRIED = "untried"  # granted; there was no row to try with
# Somebody else's trouble: the server was busy, or another session in the way.
_BUSY = ("40", "53", "55P03", "57")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose rows one role may touch in one relation, by one command. ``name`` is what the contract calls the relation:
    a partition's is that of the whole."""

    table: Table
    promise: TablePromise | None
    name: str
    role: str
    command: Command
    declared: str

    @property
    def nobodys(self) -> bool:
        """True where no session owns a row."""
        return self.promise is None or self.promise.holds in ("shared", "service")

    @property
    def wide(self) -> str:
        """What it is called where everybody's rows pass."""
        if self.declared in WIDE:
            return self.declared
        return "shared" if self.promise and self.promise.holds == "shared" else "all"


@dataclass
class Tally:
    """How many attempts at own rows and at those of others were made, and passed."""

    own: int = 0
    own_passed: int = 0
    foreign: int = 0
    foreign_passed: int = 0
    partly: bool = False
    why: dict[str, str] = field(default_factory=dict)  # by what it explains, the first of each
    trouble: str = ""

    def tell(self, what: str, why: str) -> None:
        self.why.setdefault(what, why)

    def observed(self, subject: Subject) -> str:
        """One word for it."""
        if self.foreign_passed:
            if self.own and not self.own_passed and not self.partly:
                return FOREIGN
            return SOME if subject.declared in WIDE and self.foreign_passed < self.foreign else subject.wide
        if self.own_passed or self.partly:
            return SOME if self.partly or self.own_passed < self.own else "own"
        if self.own or (self.foreign and subject.nobodys):
            return "none"
        return AT_MOST_OWN if self.foreign else UNTRIED


# -- what sessions see ------------------------------------------------------------------------------------------


def seen(evidence: Evidence, subject: Subject) -> Tally:
    """What sessions of the role see; told apart into own rows and others where the contract allows all or none."""
    tally, declared = Tally(), subject.declared
    looks = [s for s in sights(evidence) if s.table == str(subject.table) and s.identity.role == subject.role]
    if subject.promise and not subject.nobodys and declared not in ("own", "team"):
        complete = declared in WIDE and all(s.own == s.expected and not s.error + s.unverified for s in looks)
        if not complete:
            for look in looks:
                _told_apart(evidence, subject, look.identity, tally)
            return tally
    for look in looks:
        who = look.identity
        if look.unverified:
            tally.trouble = tally.trouble or look.unverified
        elif look.error:
            tally.own += who.kind in ("one", "many")
            tally.foreign += 1
            tally.tell("error", f"{who}: {look.error}")
        elif declared in WIDE:
            _add(tally, who, 0, 0, look.own + look.foreign, look.expected)
        else:
            _add(tally, who, look.own, look.expected, look.foreign, 1)
    return tally


def _told_apart(evidence: Evidence, subject: Subject, who: Identity, tally: Tally) -> None:
    mine = belongs(evidence, subject.name, who)
    question = statement(
        "select pg_catalog.count(*) filter (where {mine}), pg_catalog.count(*) filter (where not {mine}) from {t} as r",
        mine=mine, t=Name.of(str(subject.table)),
    )  # fmt: skip
    expected, others = evidence.database.remembered(question, f"counting rows of {subject.table}")[0]
    try:
        what = f"reading {subject.table} as {who}"
        own, foreign = evidence.database.one(question, what, role=who.role, settings=who.settings)
    except NotVerified as refusal:
        if not refusal.state.startswith("42"):
            raise
        own = foreign = 0
        tally.tell("error", f"{who}: {refusal.said}")
    _add(tally, who, own, expected, foreign, others if subject.declared in WIDE else min(1, others))


def _add(tally: Tally, who: Identity, own: int, expected: int, foreign: int, others: int) -> None:
    """What one session saw: of ``expected`` own rows, and of as many ``others`` as are too many, or wanted."""
    if expected:
        tally.own += 1
        tally.own_passed += own >= expected
        tally.partly |= 0 < own < expected
        if own < expected:
            tally.tell("own", f"{who} sees {own} of {expected} own rows")
    if others:
        tally.foreign += 1
        tally.foreign_passed += foreign >= others
        tally.partly |= 0 < foreign < others
        if foreign:
            tally.tell("foreign", f"{who} sees {foreign} row(s) that are not its own")


def empty(evidence: Evidence, table: Table) -> bool:
    """True where nobody has a row. Raises NotVerified."""
    question = statement("select exists (select from {t})", t=Name.of(str(table)))
    return not evidence.database.remembered(question, f"looking for a row of {table}")[0][0]


# -- what sessions can do ---------------------------------------------------------------------------------------


_NAMED = {road.name: road for road in (*READS, *WRITES)}
# The roads of one command alone; the first is aimed at one row.
ROADS: dict[Command, tuple[Road, ...]] = {
    "select": (_NAMED["select"],),
    "insert": (_NAMED["insert"],),
    "update": (_NAMED["update"], _NAMED["move all"], _NAMED["overwrite all"], _NAMED["take all"]),
    "delete": (_NAMED["delete"], _NAMED["delete all"]),
}


def attack(evidence: Evidence, subject: Subject, tally: Tally) -> None:
    """Adds what sessions of the role could do with their own rows, and with those of others."""
    try:
        given = bait(evidence, subject.table)
    except Nothing:
        return
    reads = any(h.privilege == "SELECT" for h in evidence.privileges.on(subject.role, subject.table))
    for who in _people(evidence, subject.role):
        draw = random.Random(f"{evidence.effort.seed} {subject.table} {subject.command} {who.tenancy} {who}")
        own, foreign = (_some(draw, rows, evidence) for rows in shares(evidence, given, who))
        if subject.command == "insert" or (reads and subject.command != "select"):
            for number in own:
                _write(evidence, given, subject, who, number, tally)
        for road in ROADS[subject.command]:
            for number in (foreign or own)[:1] if road.every else foreign:
                _try(evidence, given, road, who, number, own[0] if own else 0, tally, blind=not reads)


def _people(evidence: Evidence, role: str) -> list[Identity]:
    """The role's sessions; with the least effort one of each kind."""
    people = [p for p in identities(evidence) if p.role == role]
    return people if evidence.effort.examples else list({(p.tenancy, p.kind): p for p in people}.values())


def _some(draw: random.Random, rows: Sequence[int], evidence: Evidence) -> list[int]:
    """One of the rows; more of them where more than the default's effort is asked for."""
    return draw.sample(rows, min(len(rows), 1 + evidence.effort.examples // 20))


def _write(evidence: Evidence, given: Bait, subject: Subject, who: Identity, number: int, tally: Tally) -> None:
    road = next(road for road in OWN if road.commands == (subject.command,))
    try:
        made = write_own(evidence, given, road, who, number)
    except NotVerified as refusal:
        tally.trouble = tally.trouble or str(refusal)
        return
    tally.own += 1
    tally.own_passed += not made.refused
    if made.refused:
        tally.tell("own", f"{who} cannot {road.name} own rows{f': {made.outcome.said}' if made.outcome.state else ''}")


def _try(
    evidence: Evidence, given: Bait, road: Road, who: Identity, number: int, own: int, tally: Tally, blind: bool
) -> None:
    """One attempt at a row of somebody else's; or at all rows, where more than the own ones are too many."""
    aim = Aim(given, who.role, number, own, evidence.privileges, evidence.catalog.server.version)
    if (command := road.build(aim)) is None:
        return
    outcome = evidence.drills.attempt(who.role, who.settings, command)
    if outcome.state.startswith(_BUSY):
        tally.trouble = tally.trouble or f"{who} could not try to {road.name} rows of {given}: {outcome.said}"
        return
    try:
        passed = _beyond(evidence, given, who, command, outcome, tally, blind) if road.every else outcome.passed
    except NotVerified as refusal:
        tally.trouble = tally.trouble or str(refusal)
        return
    if road.every and not passed:
        return
    tally.foreign += 1
    tally.foreign_passed += passed
    if passed:
        tally.tell("foreign", f"{who} could {road.words} rows that are not its own")


def _beyond(
    evidence: Evidence, given: Bait, who: Identity, command: Statement, outcome: Outcome, tally: Tally, blind: bool
) -> bool:
    """True where more rows were touched than are the session's own; a role that cannot read aims at own ones so, too.

    What a constraint stopped may be the fault of the own rows: they are then taken one at a time.
    """
    if given.promise.holds in ("shared", "service"):
        return outcome.rows > 0
    stopped = outcome.state.startswith("23")
    if (stopped and given.table.kind == "view") or not (outcome.rows or stopped or blind):
        return False
    question = statement(
        "select pg_catalog.count(*) from {t} as r where {own}",
        t=Name.of(str(given.table)), own=belongs(evidence, given.declared, who),
    )  # fmt: skip
    mine = int(evidence.drills.remembered(question, f"counting rows of {given}")[0][0])
    if stopped:
        return outcome.passed and passes_beyond(evidence, given, who, command, mine)
    if blind and mine:
        tally.own += 1
        tally.own_passed += outcome.rows >= mine
    return outcome.rows > mine
