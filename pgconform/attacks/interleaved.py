"""Several sessions on one connection, as a pooler makes them, with memberships granted and ended between statements.

What one of them sees must follow from who it is now: not from who asked before it, nor from what it was. A plan that
was made for another caller, an answer that a function keeps in a setting, a list of tenants that is copied elsewhere,
all are right until somebody's membership changes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pgconform.attacks.memberships import Ledger
from pgconform.catalog import Catalog, Table
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.identities import Identity, identities
from pgconform.model import Nothing
from pgconform.people import memberships
from pgconform.statements import Name, column, joined, statement
from pgconform.subjects import promise_of

_LOCAL = re.compile(r"set_config\(\s*'([^']+)'\s*,[^;]*?,\s*true\s*\)", re.IGNORECASE)
_ACTS = ("look", "look again", "join", "leave", "suspend", "restore")
_HISTORIES = 4  # drawn for each example of the effort
_LONGEST = 10  # steps of one history


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: a session looks at a table, or a membership changes. Numbers count in the cast."""

    act: str
    person: int
    tenant: int = 0
    table: int = 0


@dataclass(frozen=True, slots=True)
class Surprise:
    """A session that saw what it must not, or not what it must, at the end of a history."""

    table: Table
    observed: str
    script: str


@dataclass
class Cast:
    """Who takes part: people, tenants, tables, and the ledger of memberships where there is one."""

    evidence: Evidence
    people: list[Identity]
    tenants: list[str]
    tables: list[Table]
    ledger: Ledger | None
    blank: tuple[str, ...]  # settings that end with each request
    sent: list[str] = field(default_factory=list)


def tenancy_names(contract: Contract) -> Iterator[str]:
    """Tenancies of the contract."""
    yield from contract.tenancies


def surprises(evidence: Evidence, name: str) -> Iterator[Surprise]:
    """For each table the shortest history that was found. Raises Nothing where nobody has anything to look at."""
    cast = _cast(evidence, name)
    found: dict[str, Surprise] = {}
    for number in range(len(cast.tables)):
        history = _usual(cast, number)
        if _played(cast, history):
            surprise = _played(cast, _shortened(cast, history))
            assert surprise, "what was shortened still surprises"
            found[str(surprise.table)] = surprise
    if not found and evidence.effort.examples and (drawn := _drawn(cast)):
        found[str(drawn.table)] = drawn
    yield from found.values()


def _cast(evidence: Evidence, name: str) -> Cast:
    contract, tenancy = evidence.contract, evidence.contract.tenancies[name]
    everybody = [i for i in identities(evidence) if i.tenancy == name]
    one = [i for i in everybody if i.kind == "one"]
    chosen = one[:1] + [i for i in one if not i.tenants & one[0].tenants][:1] if one else []
    chosen += [i for i in everybody if i.kind == "none" and tenancy.members][:1]
    tables = [t for t in evidence.catalog.tables if _looked_at(evidence, name, t)]
    tenants = sorted({t for i in chosen for t in i.tenants})
    if len(tenants) < 2 or not tables:
        raise Nothing(f"tenancy {name} has no two members of two tenants, or no table that they can read")
    ledger = Ledger(evidence, tenancy) if tenancy.members else None
    return Cast(evidence, chosen, tenants, tables, ledger, _blanks(evidence.catalog, contract, chosen))


def _looked_at(evidence: Evidence, name: str, table: Table) -> bool:
    """True for tables with rows of the tenancy that its members may read, the tenant's column included."""
    contract = evidence.contract
    promise = promise_of(evidence.catalog, contract, table)
    if promise is None or promise.holds != "tenant" or (promise.tenancy or next(iter(contract.tenancies))) != name:
        return False
    declared = next(n for n, p in contract.tables.items() if p is promise)
    tenancy, role = contract.tenancies[name], contract.sessions[contract.tenancies[name].session].role
    readable = {h.column for h in evidence.privileges.on(role, table) if h.privilege == "SELECT"}
    usable = evidence.privileges.reaches(role, table) and readable & {"", contract.column_of(declared)}
    ours = not tenancy.members or str(table) != tenancy.members.table
    return bool(usable and ours and contract.scope(declared, role, "select") == "own")


def _blanks(catalog: Catalog, contract: Contract, people: list[Identity]) -> tuple[str, ...]:
    """Settings that the API or a function makes for one transaction: they end with it."""
    local = {name for f in catalog.functions for name in _LOCAL.findall(f.body)}
    return tuple(sorted(local | {contract.claims_setting} | {n for i in people for n, _ in i.settings}))


def _usual(cast: Cast, table: int) -> list[Step]:
    """Two sessions look, by a plan that is made once; the second changes its memberships, and looks again."""
    looks = [Step("look again", 0, 0, table), Step("look again", 1, 0, table), Step("look", 1, 0, table)]
    if cast.ledger is None:
        return looks
    look = Step("look", 1, 0, table)
    home = min(cast.tenants.index(t) for t in cast.people[1].tenants)
    away = min(n for n, t in enumerate(cast.tenants) if t not in cast.people[1].tenants)
    changes = [("suspend", home), ("restore", home), ("leave", home), ("join", away), ("leave", away), ("join", home)]
    return looks + [step for act, tenant in changes for step in (Step(act, 1, tenant), look)]


def _drawn(cast: Cast) -> Surprise | None:
    """A history that Hypothesis drew and made short, or None."""
    from hypothesis import HealthCheck, Phase, Verbosity, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    def number(things: Sequence[object]) -> st.SearchStrategy[int]:
        return st.integers(0, len(things) - 1)

    acts = st.sampled_from(_ACTS if cast.ledger else _ACTS[:2])
    step = st.builds(Step, acts, number(cast.people), number(cast.tenants), number(cast.tables))
    effort = cast.evidence.effort
    rules = settings(
        max_examples=effort.examples * _HISTORIES, deadline=None, database=None, verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    drawn = st.lists(step, min_size=2, max_size=_LONGEST)
    try:
        found = find(drawn, lambda h: _played(cast, h) is not None, settings=rules, random=random.Random(effort.seed))
    except NoSuchExample:
        return None
    return _played(cast, found)


def _shortened(cast: Cast, history: list[Step]) -> list[Step]:
    """The history without the steps that it does not need, and without plans that it does not need."""
    for number in reversed(range(len(history))):
        plain = [replace(history[number], act="look")] if history[number].act == "look again" else []
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
    cast.sent = []
    now = {i.user: set(i.tenants) for i in cast.people}
    prepared: set[int] = set()
    try:
        for step in history:
            if step.act.startswith("look"):
                if observed := _look(cast, step, now, prepared):
                    return Surprise(cast.tables[step.table], f"{observed} {_when(history)}", _script(cast))
            else:
                _change(cast, step, now)
    finally:
        ends = ("rollback to savepoint history", "release savepoint history", "deallocate all")
        drills.send([statement(text) for text in ends])
    return None


def _when(history: list[Step]) -> str:
    """What came before the last look, in words."""
    changes = dict.fromkeys(step.act for step in history if not step.act.startswith("look"))
    if changes:
        return f"after a change of memberships ({', '.join(changes)})"
    again = any(step.act == "look again" for step in history)
    return "by a plan that was made for another one" if again else "after another one has looked"


def _change(cast: Cast, step: Step, now: dict[str, set[str]]) -> None:
    """Changes a membership, and takes from the table what now counts; a change that is refused is left out."""
    person, tenant = cast.people[step.person], cast.tenants[step.tenant]
    if cast.ledger is None:
        return
    commands = cast.ledger.commands(step.act, person.user, tenant)
    answers = cast.evidence.drills.tried([*commands, memberships(cast.ledger.members, person.user)])
    if answers:
        cast.sent += [f"{command};" for command in commands]
        now[person.user] = {own for (own,) in answers[-1][1]}


def _look(cast: Cast, step: Step, now: dict[str, set[str]], prepared: set[int]) -> str:
    """What is wrong with what a session sees; '' for nothing. One that is refused sees nothing."""
    person, table, drills = cast.people[step.person], cast.tables[step.table], cast.evidence.drills
    declared = promise_of(cast.evidence.catalog, cast.evidence.contract, table)
    assert declared, "only declared tables are looked at"
    tenant = declared.column or cast.evidence.contract.tenancy_of(declared).column
    question = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r group by 1 order by 1",
        tenant=column(tenant), t=Name.of(str(table)),
    )  # fmt: skip
    asked, plan = [question], _plan(step.table)
    if step.act == "look again":
        made = [] if step.table in prepared else [statement("prepare {p} as {q}", p=plan, q=question)]
        asked = [*made, statement("execute {p}", p=plan)]
        prepared.add(step.table)  # it stays, whatever comes of the rest
    settings = dict.fromkeys(cast.blank, "") | dict(person.settings) | {"row_security": "on"}
    begun = joined(statement("pg_catalog.set_config({n}, {v}, true)", n=n, v=v) for n, v in settings.items())
    become = [statement("select {begun}", begun=begun), statement("set local role {role}", role=Name((person.role,)))]
    back = [statement("reset role"), statement("set local row_security = off")]
    truth = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r where {tenant}::text = any({own}::text[]) group by 1",
        tenant=column(tenant), t=Name.of(str(table)), own=tuple(sorted(now[person.user])),
    )  # fmt: skip
    cast.sent += [f"{s};" for s in (*become, *asked, back[0])]
    answers = drills.tried([*become, *asked, *back, truth])
    if not answers:
        return ""
    seen: dict[str | None, int] = dict(answers[-4][1])
    real: dict[str | None, int] = dict(answers[-1][1])
    foreign, own = sum(n for t, n in seen.items() if t not in real), sum(real.values())
    if foreign:
        return f"a session sees {foreign} row(s) that are not its own"
    missed = own - sum(seen.values())
    return f"a session sees {own - missed} of its {own} own rows" if missed > 0 else ""


def _plan(table: int) -> Name:
    return Name((f"pgc_look_{table}",))


def _script(cast: Cast) -> str:
    return "\n".join(["begin;", *cast.sent, "rollback;"])
