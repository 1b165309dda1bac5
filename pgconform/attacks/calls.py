"""Functions called by clients with arguments that name somebody else: what comes back, what changes, what is run.

Arguments are drawn from the seed: identifiers of other tenants, users and rows, such that nobody has, own ones, nulls,
wildcards. What a function says of somebody else must be what it says of nobody.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pgconform.attacks.arguments import NOBODIES, TEXTS, Given, plain, probes, values
from pgconform.attacks.secrets import Secret, secrets, shown_anyway
from pgconform.attacks.side import changed_rows
from pgconform.catalog import Catalog, Function
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.database import Outcome
from pgconform.identities import SIMPLEST, Identity, identities
from pgconform.model import Nothing, NotVerified
from pgconform.names import literal, quote
from pgconform.people import memberships
from pgconform.privileges import Privileges
from pgconform.statements import Name, Statement, joined, statement
from pgconform.subjects import client_functions, promise_for

_CALLS = {0: 8, 8: 32}  # by the effort's examples: calls of one function by one session; else the last
_MANY = 300
RAN = Name(("pg_temp", "pgc_ran"))  # a sequence: what draws from it shows even when it is undone
_OTHER_KINDS = ("a", "w")


@dataclass(frozen=True, slots=True)
class Misuse:
    """A call that must not do what it did; ``how`` tells several of one function apart."""

    how: str
    observed: str
    identity: Identity
    command: Statement
    beside: Statement | None = None  # the same for nobody


def callable_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions and procedures that a client role can execute."""
    for function in client_functions(catalog, contract, privileges):
        if function.kind not in _OTHER_KINDS:
            yield function


def misuses(evidence: Evidence, function: Function) -> Iterator[Misuse]:
    """The first call of each kind that went wrong. What declared searches answer is another check's question.

    Raises Nothing where nobody can call it.
    """
    found: dict[str, Misuse] = {}
    callers = list(_callers(evidence, function))
    if not callers:
        raise Nothing(f"no session may call {function}")
    promise = promise_for(function, evidence.catalog, evidence.contract)
    ways = (_commands,) if promise and promise.search else (_answers, _commands)
    for identity in callers:
        for misuse in itertools.chain.from_iterable(way(evidence, function, identity) for way in ways):
            found.setdefault(misuse.how, misuse)
    yield from found.values()


def _callers(evidence: Evidence, function: Function) -> Iterator[Identity]:
    """One session of each kind and rank in each tenancy that may execute the function, and those that pose."""
    chosen = {(i.role, i.tenancy, i.kind, i.rank, i.after): i for i in reversed(identities(evidence))}
    for identity in sorted(chosen.values(), key=lambda i: SIMPLEST.index(i.kind)):
        if evidence.privileges.may(identity.role, "EXECUTE", function):
            patience = ("statement_timeout", str(evidence.contract.limits.call_timeout))
            yield replace(identity, settings=(*identity.settings, patience))


def call(function: Function, given: tuple[Given, ...]) -> Statement:
    """The statement that calls it; by names where all arguments have one."""
    inputs = function.inputs
    named = all(a.name for a in inputs)
    parts = []
    for argument, value in zip(inputs, given, strict=True):
        if value.omitted:
            continue
        how = ("variadic " if argument.mode == "v" else "") + ("{n} => {v}" if named else "{v}")
        parts.append(statement(how, n=Name((argument.name,)), v=value.sql))
    outs = [a for a in function.arguments if a.mode == "o"] if function.kind == "p" else []
    parts += [statement("{n} => null", n=Name((a.name,))) for a in outs]
    text = "call {f}({a})" if function.kind == "p" else "select ({f}({a}))::text limit 1000"
    return statement(text, f=Name((function.schema, function.name)), a=joined(parts))


def _attempt(evidence: Evidence, identity: Identity, command: Statement) -> Outcome:
    outcome = evidence.drills.attempt(identity.role, identity.settings, command)
    if outcome.state == "57014":
        limit = evidence.contract.limits.call_timeout
        raise NotVerified(f"a call did not end within {limit} ms; raise limits.call_timeout in the contract")
    return outcome


def _answers(evidence: Evidence, function: Function, identity: Identity) -> Iterator[Misuse]:
    """Calls whose answer holds or tells something of others, or that change others' rows."""
    hidden = secrets(evidence, identity)
    for given in _combinations(evidence, function, identity):
        command = call(function, given)
        outcome = _attempt(evidence, identity, command)
        told = ", ".join(g.label for g in given) or "no argument"
        if secret := _holds(evidence, identity, outcome, given, hidden):
            yield Misuse("reads", f"{identity} called it with {told} and got {secret}", identity, command)
        elif _tells(evidence, function, identity, given, outcome):
            observed = f"{identity} called it with {told}: its answer differs from that for an identifier nobody has"
            yield Misuse("tells", observed, identity, command, call(function, _nobody(given, 0)))
        if function.volatility == "v" and _joined(evidence, identity, command):
            observed = f"{identity} called it with {told} and became a member of another tenant"
            yield Misuse("joins", observed, identity, command)
        if function.volatility == "v" and (others := changed_rows(evidence, identity, command)):
            observed = f"{identity} called it with {told} and changed rows of {', '.join(others)} that are another's"
            yield Misuse("writes", observed, identity, command)


def _joined(evidence: Evidence, identity: Identity, command: Statement) -> bool:
    """True where a call makes its caller a member of a tenant that was there before."""
    tenancy = evidence.contract.tenancies.get(identity.tenancy)
    if not tenancy or not tenancy.members or not identity.user:
        return False
    after = memberships(tenancy.members, identity.user)
    outcome = evidence.drills.attempt(identity.role, identity.settings, command, after=after)
    there = {t for i in identities(evidence) if i.tenancy == identity.tenancy for t in i.tenants}
    return bool({t for (t,) in outcome.after} & there - identity.tenants)


def _combinations(evidence: Evidence, function: Function, identity: Identity) -> Iterator[tuple[Given, ...]]:
    """Lists of arguments: the first of each, somebody else's identifiers with nothing beside them, the last of each,
    and others drawn from the seed."""
    offered = [values(evidence, function, argument, identity) for argument in function.inputs]
    yield tuple(each[0] for each in offered)
    if not offered:
        return
    yield tuple(each[0] if each[0].foreign and each[0].type not in TEXTS else plain(each) for each in offered)
    yield tuple(each[-1] for each in offered)
    draw = random.Random(f"{evidence.effort.seed} {function.signature} {identity.kind}")
    wanted = _CALLS.get(evidence.effort.examples, _MANY)
    possible = math.prod(map(len, offered))
    if possible <= 10 * wanted:
        yield from draw.sample(list(itertools.product(*offered)), min(wanted, possible))
    else:
        yield from (tuple(draw.choice(each) for each in offered) for _ in range(wanted))


def _holds(
    evidence: Evidence, identity: Identity, outcome: Outcome, given: tuple[Given, ...], hidden: tuple[Secret, ...]
) -> str:
    """What of others' rows an answer or error holds; '' for nothing. What the caller said, or is also the own rows',
    is none."""
    text = "\n".join([*(str(value) for row in outcome.answer for value in row), outcome.told])
    said = [*(g.text for g in given), *(value for _, value in identity.settings)]
    found = (
        [s for s in hidden if s.value in text and not any(s.value in known for known in said)] if text.strip() else []
    )
    tables = Counter(s.table for s in found)
    for secret in sorted(found, key=lambda s: (-tables[s.table], s.table)):
        if not shown_anyway(evidence, identity, secret.value):
            where = ", in the words of an error" if outcome.state else ""
            return f"a value of a row of {secret.table} that is not its own{where}"
    return ""


def _tells(
    evidence: Evidence, function: Function, identity: Identity, given: tuple[Given, ...], outcome: Outcome
) -> bool:
    """True where what it says of others is not what it says of anybody else, and neither is chance.

    A function of its arguments alone says different things of different strangers: that tells nothing.
    """
    foreign = list(dict.fromkeys(g.text for g in given if g.foreign))
    if not foreign:
        return False
    theirs = _shape(outcome, given)
    nobody = [_nobody(given, which) for which in range(NOBODIES)]
    answers = (_shape(_attempt(evidence, identity, call(function, n)), n) for n in nobody)
    said = next(answers)
    if said == theirs or any(answer != said for answer in answers):
        return False
    return theirs == _shape(_attempt(evidence, identity, call(function, given)), given)


def _nobody(given: tuple[Given, ...], which: int) -> tuple[Given, ...]:
    """The same arguments, but for identifiers that nobody has."""
    foreign = list(dict.fromkeys(g.text for g in given if g.foreign))
    return tuple(g.nobody(which, foreign.index(g.text)) if g.foreign else g for g in given)


def _shape(outcome: Outcome, given: tuple[Given, ...]) -> tuple[str, tuple[str, ...]]:
    """An answer without what was passed in."""
    rows = [str(value) for row in outcome.answer for value in row]
    for text in sorted({g.text for g in given if g.foreign and g.text}, key=len, reverse=True):
        rows = [row.replace(text, "?") for row in rows]
    return outcome.state, tuple(rows)


def _commands(evidence: Evidence, function: Function, identity: Identity) -> Iterator[Misuse]:
    """Calls that run SQL which was passed in."""
    offered = [values(evidence, function, argument, identity) for argument in function.inputs]
    tried: list[Statement] = []
    for position, argument in enumerate(function.inputs):
        for probe in probes(argument, RAN):
            for others in (_own(offered), [each[-1] for each in offered]):
                others[position] = probe
                tried.append(call(function, tuple(others)))
    if tried and _ran(evidence, identity, tried):
        guilty = next((command for command in tried if _ran(evidence, identity, [command])), tried[0])
        yield Misuse("runs SQL", f"{identity} passed SQL in a text, and it was run", identity, guilty)


def _own(offered: list[list[Given]]) -> list[Given]:
    """Of each argument what a caller would pass who means no harm: something of its own, where there is any."""
    return [next((g for g in each if not g.foreign), each[0]) for each in offered]


def _ran(evidence: Evidence, identity: Identity, commands: list[Statement]) -> bool:
    """True where one of the calls drew from the sequence."""
    drills, what = evidence.drills, "preparing a sequence"
    for text in ("drop sequence if exists {s}", "create sequence {s}", "grant all on sequence {s} to public"):
        drills.run(statement(text, s=RAN), what)
    for command in commands:
        _attempt(evidence, identity, command)
    return bool(drills.one(statement("select is_called from {s}", s=RAN), what)[0])


def call_script(misuse: Misuse) -> str:
    """SQL for psql that makes the call, and undoes it."""
    settings = [f"select pg_catalog.set_config({literal(n)}, {literal(v)}, true);" for n, v in misuse.identity.settings]
    become = f"set local role {quote(misuse.identity.role)};"
    ran = "pgc_ran" in str(misuse.command)
    made = ["create temporary sequence pgc_ran;", "grant all on sequence pg_temp.pgc_ran to public;"] if ran else []
    seen = ["reset role;", "select is_called from pg_temp.pgc_ran;"] if ran else []
    asked = [misuse.command, *([misuse.beside] if misuse.beside else [])]
    calls = [line for command in asked for line in ("savepoint asked;", f"{command};", "rollback to savepoint asked;")]
    if misuse.beside:  # either call may fail, which is what tells
        calls.insert(3, "-- nobody has this identifier")
    return "\n".join(["begin;", *made, *settings, become, *calls, *seen, "rollback;"])
