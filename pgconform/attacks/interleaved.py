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
from pgconform.privileges import Privileges
from pgconform.statements import Name, column, joined, statement
from pgconform.subjects import promise_of, reachable_tables

_LOCAL = re.compile(r"set_config\(\s*'([^']+)'\s*,[^;]*?,\s*true\s*\)", re.IGNORECASE)
_ACTS = ("look", "look again", "join", "leave", "suspend", "restore")
_LONGEST = 10  # steps of one history


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: a session looks at a table, or a membership changes. Numbers count in the cast."""

    act: str
    person: int
    tenant: int = 0


@dataclass(frozen=True, slots=True)
class Surprise:
    """A session that saw what it must not, or not what it must, at the end of a history."""

    observed: str
    script: str


@dataclass
class Cast:
    """Who takes part: people, tenants, the table that they look at by its tenant's column, and the ledger of
    memberships where there is one."""

    evidence: Evidence
    people: list[Identity]
    tenants: list[str]
    table: Table
    column: str
    ledger: Ledger | None
    blank: tuple[str, ...]  # settings that end with each request
    sent: list[str] = field(default_factory=list)


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
    return Cast(evidence, chosen, tenants, table, promise.column or tenancy.column, ledger, blanks)


def _blanks(catalog: Catalog, contract: Contract, people: list[Identity]) -> tuple[str, ...]:
    """Settings that the API or a function makes for one transaction: they end with it."""
    local = {name for f in catalog.functions for name in _LOCAL.findall(f.body)}
    return tuple(sorted(local | {contract.claims_setting} | {n for i in people for n, _ in i.settings}))


def _usual(cast: Cast) -> list[Step]:
    """Two sessions look, by a plan that is made once; the second changes its memberships, and looks again."""
    look = Step("look", 1)
    looks = [Step("look again", 0), Step("look again", 1), look]
    if cast.ledger is None:
        return looks
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
    prepared = False
    try:
        for step in history:
            if step.act.startswith("look"):
                if observed := _look(cast, step, now[cast.people[step.person].user], prepared):
                    return Surprise(f"{observed} {_when(history)}", _script(cast))
                prepared = prepared or step.act == "look again"
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


def _look(cast: Cast, step: Step, own: set[str], prepared: bool) -> str:
    """What is wrong with what a session sees; '' for nothing. One that is refused sees nothing."""
    person, table, tenant = cast.people[step.person], Name.of(str(cast.table)), column(cast.column)
    question = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r group by 1 order by 1", tenant=tenant, t=table
    )
    asked = [question]
    if step.act == "look again":
        made = [] if prepared else [statement("prepare pgc_look as {q}", q=question)]
        asked = [*made, statement("execute pgc_look")]
    settings = dict.fromkeys(cast.blank, "") | dict(person.settings) | {"row_security": "on"}
    begun = joined(statement("pg_catalog.set_config({n}, {v}, true)", n=n, v=v) for n, v in settings.items())
    become = [statement("select {begun}", begun=begun), statement("set local role {role}", role=Name((person.role,)))]
    back = [statement("reset role"), statement("set local row_security = off")]
    truth = statement(
        "select {tenant}::text, pg_catalog.count(*) from {t} as r where {tenant}::text = any({own}::text[]) group by 1",
        tenant=tenant, t=table, own=tuple(sorted(own)),
    )  # fmt: skip
    cast.sent += [f"{s};" for s in (*become, *asked, back[0])]
    cast.evidence.drills.attempts += 1
    answers = cast.evidence.drills.tried([*become, *asked, *back, truth])
    if not answers:
        return ""
    seen: dict[str | None, int] = dict(answers[-4][1])
    real: dict[str | None, int] = dict(answers[-1][1])
    if foreign := sum(n for t, n in seen.items() if t not in real):
        return f"a session sees {foreign} row(s) that are not its own"
    shown, there = sum(seen.values()), sum(real.values())
    return f"a session sees {shown} of its {there} own rows" if shown < there else ""


def _script(cast: Cast) -> str:
    return "\n".join(["begin;", *cast.sent, "rollback;"])
