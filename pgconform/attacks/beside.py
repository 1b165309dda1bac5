"""What stands beside tables and functions: sequences to set, roles to take on, large objects to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgconform.catalog import Catalog
from pgconform.checks import Evidence
from pgconform.contract import Contract
from pgconform.names import quote
from pgconform.probes.large_objects import compatible, open_to_clients
from pgconform.probes.malformed import private_tables
from pgconform.remedies import leave, reset, revoke
from pgconform.statements import Name, Statement, statement

_OBJECTS = 20  # large objects that are asked for


@dataclass(frozen=True, slots=True)
class Way:
    """What a client could do that no policy has a say in. ``what`` tells several of one client apart."""

    what: str
    observed: str
    remedy: str
    script: str


def clients(catalog: Catalog, contract: Contract) -> Iterator[str]:
    """Client roles that are there."""
    yield from (role for role in contract.roles.clients if catalog.role(role))


def ways(evidence: Evidence, client: str) -> Iterator[Way]:
    """Each sequence that the client could set, each role that it could take on and then see rows, and large objects."""
    yield from _sequences(evidence, client)
    yield from _roles(evidence, client)
    yield from _objects(evidence, client)


def _sequences(evidence: Evidence, client: str) -> Iterator[Way]:
    """Set to the value that they have: what is set outlives a rollback."""
    for sequence in evidence.catalog.sequences:
        if sequence.extension:
            continue
        state = statement(
            "select s.tableoid::bigint, s.last_value, s.is_called from {s} as s", s=Name.of(str(sequence))
        )
        oid, value, called = evidence.drills.one(state, f"looking at sequence {sequence}")
        text = "select pg_catalog.setval({it}::regclass, {value}::bigint, {called}::boolean)"
        names = statement("{oid}::oid", oid=oid), statement("{n}", n=str(sequence))  # a number needs no schema
        command, shown = (statement(text, it=it, value=value, called=statement(str(called).lower())) for it in names)
        if evidence.drills.attempt(client, (), command).passed:
            held = [h for h in evidence.privileges.on(client, sequence) if h.privilege == "UPDATE"]
            remedy = "\n".join(revoke(h, f"sequence {sequence}", client, evidence.privileges) for h in held)
            yield Way(f"sequence {sequence}", f"it could set sequence {sequence}", remedy, _script(client, shown))


def _roles(evidence: Evidence, client: str) -> Iterator[Way]:
    """As a session that is the client's from the start: what it may become is asked of whoever has signed in."""
    drills, others = evidence.drills, set(evidence.contract.roles.clients)
    for role in sorted(evidence.privileges.can_take(client) - others):
        begun = [
            statement("set local session authorization {c}", c=Name((client,))),
            statement("set local role {r}", r=Name((role,))),
        ]
        for table in private_tables(evidence.catalog, evidence.contract, evidence.privileges):
            asked = statement("select exists (select from {t})", t=Name.of(str(table)))
            drills.send([statement("savepoint beside"), statement("set local row_security = on")])
            drills.attempts += 1
            answers = drills.tried([*begun, asked])
            drills.send([statement("rollback to savepoint beside"), statement("release savepoint beside")])
            if answers and answers[-1][1][0][0]:
                observed = f"it could take on {quote(role)}, and saw rows of {table} without a user"
                script = "\n".join(["begin;", *(f"{s};" for s in (*begun, asked)), "rollback;"])
                yield Way(f"role {quote(role)}", observed, leave(client, role, evidence.privileges), script)
                break


def _objects(evidence: Evidence, client: str) -> Iterator[Way]:
    question = statement("select m.oid::bigint from pg_catalog.pg_largeobject_metadata as m order by 1 limit {n}",
                         n=_OBJECTS)  # fmt: skip
    for (oid,) in evidence.drills.rows(question, "looking for large objects"):
        command = statement("select pg_catalog.length(pg_catalog.lo_get({oid}::oid))", oid=oid)
        if evidence.drills.attempt(client, (), command).passed:
            remedies = [each.remedy(evidence) for each in open_to_clients(evidence) if each.client == client]
            remedies += [reset(setting) for setting in compatible(evidence)]
            remedy = "\n".join(dict.fromkeys(remedies))
            yield Way("large objects", f"it could read large object {oid}", remedy, _script(client, command))
            return


def _script(client: str, command: Statement) -> str:
    return "\n".join(["begin;", f"set local role {quote(client)};", f"{command};", "rollback;"])
