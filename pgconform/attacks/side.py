"""What runs on the side of a client's statement, with rights that the client does not have."""

from __future__ import annotations

from collections.abc import Iterator

from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.identities import Identity
from pgconform.model import NotVerified
from pgconform.names import quote
from pgconform.probes.visibility import concerns
from pgconform.statements import Name, Statement, column, joined, statement
from pgconform.subjects import promise_of

# Rows that this transaction has written so far, undone or not, by relation.
_WRITTEN = statement(
    "select pg_catalog.format('%I.%I', s.schemaname, s.relname), s.n_tup_ins + s.n_tup_upd + s.n_tup_del"
    " from pg_catalog.pg_stat_xact_user_tables as s where s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 order by 1"
)


def changed_rows(evidence: Evidence, who: Identity, command: Statement) -> list[str]:
    """Relations of which a statement changes rows that are neither the caller's nor of the own tenants.

    Raises NotVerified where the statement works once but not again.
    """
    before: dict[str, int] = dict(evidence.drills.rows(_WRITTEN, "counting writes"))
    once = evidence.drills.attempt(who.role, who.settings, command, after=_WRITTEN)
    changed = [name for name, rows in once.after if rows > before.get(name, 0)]
    return sorted(_foreign(evidence, changed, who, command))


def _foreign(evidence: Evidence, changed: list[str], who: Identity, command: Statement) -> Iterator[str]:
    """Of relations that a statement changes those in which it changes somebody else's rows."""
    known = {str(t): t for t in evidence.catalog.tables}
    wanted = [name for name in changed if name in known and _holder(evidence, known[name])]
    if not wanted:
        return
    question = joined([_fingerprint(evidence, known[name], who) for name in wanted], " union all ")
    before: dict[str, str] = dict(evidence.drills.rows(question, "looking at foreign rows"))
    again = evidence.drills.attempt(who.role, who.settings, command, after=question)
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
    declared = _holder(evidence, table)
    return statement(
        "select {name}::text, coalesce(pg_catalog.sum(pg_catalog.hashtextextended(r::text, 0)::numeric), 0)::text"
        " || ' ' || pg_catalog.count(*)::text from {t} as r where not {own} and {known}",
        name=str(table), t=Name.of(str(table)), own=concerns(evidence, declared, who),
        known=_known(evidence, declared),
    )  # fmt: skip


def _known(evidence: Evidence, declared: str) -> Statement:
    """True for rows of tenants that were there before: one that a statement has just made is nobody else's."""
    promise = evidence.contract.tables[declared]
    registry = evidence.contract.tenancy_of(promise).registry if promise.holds == "tenant" else None
    if registry is None:
        return statement("true")
    question = statement("select {k}::text from {t} as r order by 1", k=column(registry.key), t=Name.of(registry.table))
    tenants = tuple(t for (t,) in evidence.database.remembered(question, "looking up the tenants"))
    holder = column(evidence.contract.column_of(declared))
    return statement("({h} is null or {h}::text = any({t}::text[]))", h=holder, t=tenants)


def culprits(evidence: Evidence, table: Table) -> list[str]:
    """SQL, a line each, that takes from a relation its rules, and from its triggers' functions their owners' rights."""
    question = statement(
        "select r.rulename from pg_catalog.pg_rules as r where r.schemaname = {s} and r.tablename = {t} order by 1",
        s=table.schema, t=table.name,
    )  # fmt: skip
    rules = evidence.drills.rows(question, f"looking up the rules of {table}")
    lines = [f"drop rule {quote(name)} on {table};" for (name,) in rules]
    for trigger in table.triggers:
        for function in evidence.catalog.functions_named(trigger.function):
            if function.security_definer:
                lines.append(f"alter function {function.signature} security invoker;")
    return list(dict.fromkeys(lines))
