"""Attempts: a client, a road, a row; run, undone, and held against what the contract allows.

For each relation and road one attempt of each session comes first, then as many as the effort says, drawn by
Hypothesis from the seed. What goes through is shrunk to the simplest session and row that still do.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgconform.attacks.bait import Bait, bait, forbidden, naming_users, row, shares
from pgconform.attacks.roads import NOBODY, Aim, Road
from pgconform.attacks.stopped import passes_beyond
from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.database import Outcome
from pgconform.identities import SIMPLEST, Identity, identities, represented
from pgconform.model import Nothing, NotVerified
from pgconform.names import literal, quote
from pgconform.probes.malformed import BLIND, writers
from pgconform.probes.visibility import belongs, shown, touchable
from pgconform.statements import Name, Statement, column, joined, statement


@dataclass(frozen=True, slots=True)
class Breach:
    """An attempt that went through and must not have: the simplest of its road."""

    road: Road
    identity: Identity
    command: Statement
    outcome: Outcome
    bait: Bait
    numbers: tuple[int, ...]  # of the bait's rows

    def __str__(self) -> str:
        whose = "rows that are not its own" if self.bait.holder else "rows"
        rows = "all" if self.outcome.rows < 0 else self.outcome.rows
        how = f"stopped only by {self.outcome.said}" if self.outcome.state else f"{rows} touched"
        return f"{self.identity} could {self.road.words} {whose} ({how})"


def breaches(evidence: Evidence, table: Table, roads: Iterable[Road]) -> Iterator[Breach]:
    """For each road the simplest attempt that went through against the contract.

    Raises Nothing where there is no row or nobody to try, NotVerified where no attempt could be made.
    """
    given = bait(evidence, table)
    tried, doubts = 0, []
    for road in roads:
        people = sorted(whom(evidence, road), key=lambda i: SIMPLEST.index(i.kind))
        cases = _cases(evidence, given, road, people)
        tried += len(cases)
        try:
            if found := _simplest(evidence, given, road, cases):
                yield found
        except NotVerified as doubt:  # the other roads may tell
            doubts.append(doubt)
    if doubts:
        raise doubts[0]
    represented(evidence, table)
    if not tried:
        raise Nothing(f"nobody is kept from any row of {table}")


Case = tuple[Identity, tuple[int, ...], tuple[int, ...]]  # who, rows to aim at, own rows


def _cases(evidence: Evidence, given: Bait, road: Road, people: Iterable[Identity]) -> list[Case]:
    """Who has what to aim at. Sessions of a role that lacks the privilege are all alike: one will do."""
    found: list[Case] = []
    refused: set[str] = set()
    for identity in people:
        rows = forbidden(evidence, given, identity, road.commands)
        held = {h.privilege.lower() for h in evidence.privileges.on(identity.role, given.table)}
        own = shares(evidence, given, identity)[0]
        if rows and (own or not road.authored) and identity.role not in refused:
            refused |= set() if held >= road.needs and not road.by_role else {identity.role}
            found.append((identity, rows, own))
    return found


def whom(evidence: Evidence, road: Road) -> list[Identity]:
    """The sessions that attack: all of them, or with the least effort the first and the last of each kind and rank, who
    read, and one of each kind, who writes; and those with malformed tokens by the roads that read nothing."""
    people = list(identities(evidence))
    odd = writers(evidence) if road.name in BLIND else []
    if evidence.effort.examples:
        return people + odd
    if road.commands != ("select",):
        chosen = [*{(p.role, p.tenancy, p.kind, p.after): p for p in people}.values()]  # the last of each
    else:
        ends = (people, people[::-1])
        known = [{(p.role, p.tenancy, p.kind, p.rank, p.after): p for p in end} for end in ends]
        chosen = [p for each in known for p in each.values()]
    return [p for p in people if p in chosen] + odd


def _simplest(evidence: Evidence, given: Bait, road: Road, cases: list[Case]) -> Breach | None:
    draw = random.Random(f"{evidence.effort.seed} {given} {road.name}")
    first = [(n, draw.randrange(64), draw.randrange(64)) for n in range(len(cases))]
    made: dict[tuple[int, int, int], Breach | None] = {}
    doubts: list[NotVerified] = []

    def attempt(drawn: tuple[int, int, int]) -> Breach | None:
        who, rows, own = cases[drawn[0]]
        chosen = (drawn[0], drawn[1] % len(rows), drawn[2] % max(1, len(own)))
        if chosen not in made:
            made[chosen] = None
            try:
                made[chosen] = _attempt(evidence, given, road, who, rows[chosen[1]], own[chosen[2]] if own else 0)
            except NotVerified as doubt:  # the next session may tell
                doubts.append(doubt)
        return made[chosen]

    through = any(attempt(drawn) for drawn in first)
    if doubts and not through:
        raise doubts[0]
    if not cases or not (through or evidence.effort.examples):
        return None
    from hypothesis import HealthCheck, Phase, Verbosity, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    rules = settings(
        max_examples=max(evidence.effort.examples, 100 if through else 0), deadline=None, database=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet,
    )  # fmt: skip
    number = st.integers(0, 63)
    drawn = st.tuples(st.integers(0, len(cases) - 1), number, number)
    try:
        return attempt(find(drawn, lambda d: attempt(d) is not None, settings=rules, random=draw))
    except NoSuchExample:
        return next((breach for _, breach in sorted(made.items(), key=lambda m: m[0]) if breach), None)


def _attempt(evidence: Evidence, given: Bait, road: Road, who: Identity, number: int, own: int) -> Breach | None:
    author = (naming_users(evidence, given.table), who.user) if road.authored else NOBODY
    aim = Aim(given, who.role, number, own, evidence.privileges, evidence.catalog.server.version, author)
    command = road.build(aim)
    if command is None:
        return None
    outcome = evidence.drills.attempt(who.role, (*who.settings, *road.settings), command, road.after)
    # What a view's CHECK OPTION says comes after constraints: a broken one tells nothing there (ExecInsert).
    through = road.through(outcome) and not (given.table.kind == "view" and outcome.state)
    mine = own_rows(evidence, given, who, road) if road.every and through else 0
    if through and mine and outcome.state:  # an own row may be what the constraint stopped
        through = passes_beyond(evidence, given, who, command, mine)
    elif mine:
        through = outcome.rows > mine
    if through:
        return Breach(road, who, command, outcome, given, tuple(filter(None, (number, own))))
    return None


def own_rows(evidence: Evidence, given: Bait, who: Identity, road: Road, least: bool = False) -> int:
    """How many rows of the relation the identity may touch with no condition; at ``least``: others may be hidden."""
    if "none" in {evidence.contract.scope(given.declared, who.role, command) for command in road.commands}:
        return 0
    touched = touchable(evidence, given.declared, who, road.commands)
    question = statement(
        "select pg_catalog.count(*) from {t} as r where {own} and {visible}",
        t=Name.of(str(given.table)), own=belongs(evidence, given.declared, who) if least else touched,
        visible=shown(given.promise) if least else statement("true"),
    )  # fmt: skip
    what = f"counting rows of {given}"
    if given.table.kind != "view":
        return int(evidence.drills.remembered(question, what)[0][0])
    return int(evidence.drills.one(question, what, settings=who.settings)[0])  # it may show each caller its own


def script(evidence: Evidence, breach: Breach) -> str:
    """SQL for psql that shows the breach and undoes it. Names rows by their keys, and holds none of their content."""
    settings = [f"select pg_catalog.set_config({literal(n)}, {literal(v)}, true);" for n, v in breach.identity.settings]
    made = laid_out(evidence, breach.bait, breach.numbers)
    become = f"set local role {quote(breach.identity.role)};"
    after = [f"{breach.road.after};"] if breach.road.after else []
    data = ["\\."] if breach.command.template.endswith("from stdin") else []  # psql reads rows up to here: none
    return "\n".join(["begin;", *made, *settings, become, f"{breach.command};", *data, *after, "rollback;"])


def laid_out(evidence: Evidence, given: Bait, numbers: Iterable[int]) -> list[str]:
    """SQL that makes the table of the rows that a script aims at; nothing for none."""
    rows = []
    for number in numbers:
        wanted = row(number, "r")
        if given.key:
            values = statement("{k}", k=joined(statement("{c}::text", c=column(k)) for k in given.key))
            question = statement("select {v} from {copy} as r where {w}", v=values, copy=given.copy, w=wanted)
            found = evidence.drills.one(question, f"looking up a key of {given}")
            pairs = zip(given.key, found, strict=True)
            wanted = joined((statement("{c} = {v}", c=column(k), v=v) for k, v in pairs), " and ")
        elif given.holder:
            asked = statement(
                "select {h}::text from {c} as r where {w}", h=column(given.holder), c=given.copy, w=wanted
            )
            owner = evidence.drills.one(asked, f"looking up an owner in {given}")[0]
            wanted = statement("{h}::text is not distinct from {o} limit 1", h=column(given.holder), o=owner)
        rows.append((number, wanted))
    place, relation = ("null::tid", "null::oid") if given.table.kind == "view" else ("r.ctid", "r.tableoid")
    source = " union all\n  ".join(
        f"(select {number} as pgc_row, r.*, {place} as pgc_place, {relation} as pgc_relation"
        f" from {given} as r where {wanted})"
        for number, wanted in rows
    )
    made = f"create temporary table {quote(given.copy[1])} as\n  {source};"
    return [made, f"grant select on {quote(given.copy[1])} to public;"] if rows else []
