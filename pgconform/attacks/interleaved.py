"""Several sessions on one connection, as a pooler makes them, with memberships granted and ended between statements.

What one of them sees and writes must follow from who it is now: not from who asked before it, nor from what it was. A
plan that was made for another caller, an answer that a function keeps in a setting, a list of tenants that is copied
elsewhere, all are right until somebody's membership changes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pgconform.attacks.attempts import laid_out
from pgconform.attacks.bait import Bait, bait, naming_users
from pgconform.attacks.memberships import Ledger
from pgconform.attacks.roads import WRITES, Aim
from pgconform.catalog import Catalog, Table
from pgconform.checks import Evidence
from pgconform.contract import Command, Contract
from pgconform.identities import Identity, identities
from pgconform.model import Nothing
from pgconform.people import memberships
from pgconform.privileges import Privileges
from pgconform.statements import Name, Statement, column, joined, statement
from pgconform.subjects import promise_of, reachable_tables

_LOCAL = re.compile(r"set_config\(\s*'([^']+)'\s*,[^;]*?,\s*true\s*\)", re.IGNORECASE)
_LOOKS = ("look", "look again")
_AGAIN = " again"  # by a plan that is kept
_ROADS = {road.name: road for road in WRITES}
# For each command a road to one row, and one to all rows that it reaches, reading nothing.
_WRITES: dict[Command, tuple[str, ...]] = {
    "insert": ("insert",),
    "update": ("update", "overwrite all"),
    "delete": ("delete", "delete all"),
}
_LONGEST = 10  # steps of one history


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: a session looks at a table or writes it, or a membership changes. Numbers count in the
    cast; an act that ends with "again" goes by a plan that is kept, and is undone."""

    act: str
    person: int
    tenant: int = 0


@dataclass(frozen=True, slots=True)
class Surprise:
    """A session that saw or wrote what it must not, or saw not what it must, at the end of a history."""

    observed: str
    script: str
    role: str  # of the session
    hides: bool  # own rows were kept from it


@dataclass
class Cast:
    """Who takes part: people, tenants, the table that they look at by its tenant's column, the ledger of memberships
    where there is one, and the rows to write: ``rows`` holds the number of a row of each tenant, by tenant."""

    evidence: Evidence
    people: list[Identity]
    tenants: list[str]
    table: Table
    column: str
    ledger: Ledger | None
    blank: tuple[str, ...]  # settings that end with each request
    roads: tuple[str, ...] = ()  # by which it is written
    given: Bait | None = None
    rows: dict[str, int] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    aimed: set[int] = field(default_factory=set)  # numbers of rows that were sent for
    planned: set[str] = field(default_factory=set)  # acts whose plans are kept by now

    @property
    def blind(self) -> list[str]:
        """Roads to all rows."""
        return [name for name in self.roads if _ROADS[name].every]

    def acts(self) -> list[str]:
        """All that can happen."""
        again = [name + _AGAIN for name in self.blind]
        return [*_LOOKS, *(self.ledger.acts if self.ledger else ()), *self.roads, *again]


def shared_tables(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Relations with rows of tenants that members may read, the tenant's column included."""
    for table in reachable_tables(contract, privileges):
        promise = promise_of(catalog, contract, table)
        if promise is None or promise.holds != "tenant":
            continue
        tenancy, declared = contract.tenancy_of(promise), promise.column or contract.tenancy_of(promise).column
        role = contract.sessions[tenancy.session].role
        readable = {h.column for h in privileges.on(role, table) if h.privilege == "SELECT"}
        name = next(n for n, p in contract.tables.items() if p is promise)
        members = tenancy.members and tenancy.members.table == str(table)
        if readable & {"", declared} and not members and contract.scope(name, role, "select") == "own":
            yield table


def surprise(evidence: Evidence, table: Table) -> Surprise | None:
    """The shortest history that was found to surprise. Raises Nothing where there are no two members to take turns."""
    cast = _cast(evidence, table)
    history = _usual(cast)
    if _played(cast, history):
        return _played(cast, _shortened(cast, history))
    return _drawn(cast) if evidence.effort.examples else None


def _cast(evidence: Evidence, table: Table) -> Cast:
    contract, promise = evidence.contract, promise_of(evidence.catalog, evidence.contract, table)
    assert promise, "only declared tables are looked at"
    tenancy = contract.tenancy_of(promise)
    name = next(n for n, t in contract.tenancies.items() if t is tenancy)
    role = contract.sessions[tenancy.session].role
    everybody = [i for i in identities(evidence) if i.tenancy == name and i.role == role]
    one = [i for i in everybody if i.kind == "one"]
    chosen = one[:1] + [i for i in one if not i.tenants & one[0].tenants][:1] if one else []
    chosen += [i for i in everybody if i.kind == "none" and tenancy.members][:1]
    tenants = sorted({t for i in chosen for t in i.tenants})
    if len(tenants) < 2:
        raise Nothing(f"tenancy {name} has no two members of two tenants")
    ledger = Ledger(evidence, tenancy) if tenancy.members else None
    blanks = _blanks(evidence.catalog, contract, chosen)
    cast = Cast(evidence, chosen, tenants, table, promise.column or tenancy.column, ledger, blanks)
    _arm(cast, chosen[0].role)
    return cast


def _arm(cast: Cast, role: str) -> None:
    """Gives the cast roads and rows to write, where the role may write own rows of a table that has some."""
    evidence, table = cast.evidence, cast.table
    if table.kind not in ("table", "partitioned"):
        return
    try:
        given = bait(evidence, table)
    except Nothing:
        return
    held = {h.privilege.lower() for h in evidence.privileges.on(role, table)}
    may = [c for c in _WRITES if c in held and evidence.contract.scope(given.declared, role, c) in ("own", "none")]
    question = statement(
        "select {h}::text, pg_catalog.min(r.pgc_row) from {copy} as r where {h}::text = any({t}::text[]) group by 1",
        h=column(cast.column), copy=given.copy, t=tuple(cast.tenants),
    )  # fmt: skip
    cast.given, cast.rows = given, dict(evidence.drills.rows(question, f"choosing rows of {table}"))
    cast.roads = tuple(road for command in may for road in _WRITES[command])


def _blanks(catalog: Catalog, contract: Contract, people: list[Identity]) -> tuple[str, ...]:
    """Settings that the API or a function makes for one transaction: they end with it."""
    local = {name for f in catalog.functions for name in _LOCAL.findall(f.body)}
    return tuple(sorted(local | {contract.claims_setting} | {n for i in people for n, _ in i.settings}))


def _usual(cast: Cast) -> list[Step]:
    """Two sessions look and write, by plans that are made once; the second changes its memberships, and does it again.

    It writes all that it reaches only after its memberships have ended, so that there is something left to see.
    """
    look, blind = Step("look", 1), [Step(name, 1) for name in cast.blind]
    again = [replace(step, act=step.act + _AGAIN) for step in blind]
    mine = min(cast.tenants.index(t) for t in cast.people[0].tenants)
    first = [Step(name, 0, mine) for name in cast.roads if name not in cast.blind]
    looks = [Step("look again", 0), Step("look again", 1), look, *first, *(replace(s, person=0) for s in again)]
    if cast.ledger is None:
        return [*looks, *again, *blind]
    home = min(cast.tenants.index(t) for t in cast.people[1].tenants)
    away = min(n for n, t in enumerate(cast.tenants) if t not in cast.people[1].tenants)
    inserted = [Step("insert", 1, home)] if "insert" in cast.roads else []
    ended = (*again, *blind, *inserted)
    after = dict.fromkeys(("suspend", "expire", "leave"), ended)
    changes = ("promote", "demote", "suspend", "restore", "expire", "restore", "leave")
    known = [Step(act, 1, home) for act in changes if act in cast.ledger.acts]
    history = [step for change in known for step in (change, look, *after.get(change.act, ()))]
    moves = [("join", away), ("leave", away), ("join", home)]
    return [*looks, *history, *(step for act, there in moves for step in (Step(act, 1, there), look))]


def _drawn(cast: Cast) -> Surprise | None:
    """A history that Hypothesis drew and made short, or None."""
    from hypothesis import HealthCheck, Phase, Verbosity, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    def number(things: Sequence[object]) -> st.SearchStrategy[int]:
        return st.integers(0, len(things) - 1)

    acts = st.sampled_from(cast.acts())
    step = st.builds(Step, acts, number(cast.people), number(cast.tenants))
    effort = cast.evidence.effort
    draw = random.Random(f"{effort.seed} {cast.table}")
    rules = settings(
        max_examples=effort.examples, deadline=None, database=None, verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    drawn = st.lists(step, min_size=2, max_size=_LONGEST)
    try:
        found = find(drawn, lambda h: _played(cast, h) is not None, settings=rules, random=draw)
    except NoSuchExample:
        return None
    return _played(cast, found)


def _shortened(cast: Cast, history: list[Step]) -> list[Step]:
    """The history without the steps that it does not need, and without plans that it does not need."""
    for number in reversed(range(len(history))):
        act = history[number].act
        plain = [replace(history[number], act=act.removesuffix(_AGAIN))] if act.endswith(_AGAIN) else []
        for instead in ([], plain):
            shorter = history[:number] + instead + history[number + 1 :]
            if shorter != history and shorter and _played(cast, shorter):
                history = shorter
                break
    return history


def _played(cast: Cast, history: list[Step]) -> Surprise | None:
    """Plays a history until something surprises, and undoes it."""
    drills = cast.evidence.drills
    drills.send([statement("savepoint history")])
    cast.sent, cast.aimed, cast.planned = [], set(), set()
    now = [set(i.tenants) for i in cast.people]  # by number: without a table of members nobody is told apart by user
    try:
        for step in history:
            own, hides = now[step.person], False
            if step.act in _LOOKS:
                observed, hides = _look(cast, step, own)
            elif step.act.removesuffix(_AGAIN) in _ROADS:
                observed = _write(cast, step, own)
            else:
                observed = ""
                _change(cast, step, now)
            if observed:
                role = cast.people[step.person].role
                return Surprise(f"{observed} {_when(history)}", _script(cast), role, hides)
    finally:
        ends = ("rollback to savepoint history", "release savepoint history", "deallocate all")
        drills.send([statement(text) for text in ends])
    return None


def _when(history: list[Step]) -> str:
    """What came before the last step, in words."""
    acts = [step.act for step in history]
    changes = dict.fromkeys(act for act in acts if act not in _LOOKS and act.removesuffix(_AGAIN) not in _ROADS)
    if changes:
        return f"after a change of memberships ({', '.join(changes)})"
    if any(act.endswith(_AGAIN) for act in acts):
        return "by a plan that was made for another one"
    return "after another one has looked" if all(act in _LOOKS for act in acts) else "after another one has been there"


def _change(cast: Cast, step: Step, now: list[set[str]]) -> None:
    """Changes a membership, and takes from the table what now counts; a change that is refused is left out."""
    person, tenant = cast.people[step.person], cast.tenants[step.tenant]
    if cast.ledger is None:
        return
    commands = cast.ledger.commands(step.act, person.user, tenant)
    answers = cast.evidence.drills.tried([*commands, memberships(cast.ledger.members, person.user)])
    if answers:
        cast.sent += [f"{command};" for command in commands]
        now[step.person] = {own for (own,) in answers[-1][1]}


def _look(cast: Cast, step: Step, own: set[str]) -> tuple[str, bool]:
    """What is wrong with what a session sees, '' for nothing, and whether it sees too little. One that is refused sees
    nothing."""
    table, tenant = Name.of(str(cast.table)), column(cast.column)
    question = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r group by 1 order by 1", tenant=tenant, t=table
    )
    truth = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r where {tenant}::text = any({own}::text[]) group by 1",
        tenant=tenant, t=table, own=tuple(sorted(own)),
    )  # fmt: skip
    become, back = _session(cast, step)
    asked = _planned(cast, step, question)
    cast.sent += [f"{s};" for s in (*become, *asked, back[0])]
    cast.evidence.drills.attempts += 1
    answers = cast.evidence.drills.tried([*become, *asked, *back, truth])
    if not answers:
        return "", False
    seen: dict[str | None, int] = dict(answers[-4][1])
    real: dict[str | None, int] = dict(answers[-1][1])
    if foreign := sum(n for t, n in seen.items() if t not in real):
        return f"a session sees {foreign} row(s) that are not its own", False
    shown, there = sum(seen.values()), sum(real.values())
    return (f"a session sees {shown} of its {there} own rows", True) if shown < there else ("", False)


def _write(cast: Cast, step: Step, own: set[str]) -> str:
    """What is wrong with what a session writes; '' for nothing, and for what is refused."""
    person, road, tenant = cast.people[step.person], _ROADS[step.act.removesuffix(_AGAIN)], cast.tenants[step.tenant]
    number, evidence = cast.rows.get(tenant), cast.evidence
    if number is None or cast.given is None:
        return ""
    author = (naming_users(evidence, cast.table), person.user)
    version = evidence.catalog.server.version
    command = road.build(Aim(cast.given, person.role, number, number, evidence.privileges, version, author))
    assert command, "these roads can be built everywhere"
    holder = column(cast.column)
    question = statement(
        "select pg_catalog.count(*) from {t} as r where {h}::text = any({own}::text[])",
        h=holder, t=Name.of(str(cast.table)), own=tuple(sorted(own)),
    )  # fmt: skip
    become, back = _session(cast, step)
    done = [*become, *_planned(cast, step, command), back[0]]
    if step.act.endswith(_AGAIN):
        done = [statement("savepoint once"), *done, statement("rollback to savepoint once")]
    evidence.drills.attempts += 1
    answers = evidence.drills.tried([question, *done, back[1]])
    if not answers:
        return ""
    cast.sent += [f"{s};" for s in done]
    cast.aimed.add(number)
    touched = answers[-4 if step.act.endswith(_AGAIN) else -3][0]
    mine = answers[0][1][0][0] if road.every else touched if tenant in own else 0
    return f"a session could {road.words} {touched - mine} row(s) that are not its own" if touched > mine else ""


def _planned(cast: Cast, step: Step, command: Statement) -> list[Statement]:
    """The command, or what runs it by a plan that is made once."""
    if not step.act.endswith(_AGAIN):
        return [command]
    name = Name(("pgc " + step.act,))
    made = [] if step.act in cast.planned else [statement("prepare {n} as {q}", n=name, q=command)]
    cast.planned.add(step.act)
    return [*made, statement("execute {n}", n=name)]


def _session(cast: Cast, step: Step) -> tuple[list[Statement], list[Statement]]:
    """How a session begins, and how it ends."""
    person = cast.people[step.person]
    settings = dict.fromkeys(cast.blank, "") | dict(person.settings) | {"row_security": "on"}
    begun = joined(statement("pg_catalog.set_config({n}, {v}, true)", n=n, v=v) for n, v in settings.items())
    become = [statement("select {begun}", begun=begun), statement("set local role {role}", role=Name((person.role,)))]
    return become, [statement("reset role"), statement("set local row_security = off")]


def _script(cast: Cast) -> str:
    made = laid_out(cast.evidence, cast.given, sorted(cast.aimed)) if cast.given else []
    return "\n".join(["begin;", *made, *cast.sent, "rollback;"])
