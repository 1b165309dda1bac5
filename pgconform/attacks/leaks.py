"""Views that ask a caller's own function before their own condition, and so tell it what they hide."""

from __future__ import annotations

from pgconform.catalog import Table
from pgconform.checks import Evidence
from pgconform.identities import Identity, identities
from pgconform.names import literal, quote
from pgconform.statements import Name, Statement, column, statement
from pgconform.subjects import promise_of

# Cheap, and not leakproof: the planner asks it first, unless the view is a security barrier (PostgreSQL manual, "Rules
# and Privileges"). That it was asked about somebody else shows in a sequence, which no rollback undoes.
_LISTENER = (
    "create sequence if not exists pg_temp.pgc_heard",
    "grant all on sequence pg_temp.pgc_heard to public",
    "create or replace function pg_temp.pgc_listen(said text, others text[]) returns boolean language plpgsql"
    " cost 0.0001 as $$begin if said = any (others) then perform pg_catalog.nextval('pg_temp.pgc_heard'); end if;"
    " return true; end$$",
    "grant execute on function pg_temp.pgc_listen(text, text[]) to public",
)
_HEARD = "select s.is_called, pg_catalog.setval('pg_temp.pgc_heard', 1, false) from pg_temp.pgc_heard as s"
# Any session may have the planner read whole tables, so that the function is asked of every row.
_PLANS = tuple((f"enable_{way}", "off") for way in ("indexscan", "indexonlyscan", "bitmapscan", "nestloop"))


def leak(evidence: Evidence, view: Table) -> tuple[Identity, Statement] | None:
    """The first member to whose function the view tells of other tenants, with the statement; None for none."""
    promise = promise_of(evidence.catalog, evidence.contract, view)
    if promise is None or promise.holds != "tenant" or view.kind != "view":
        return None
    holder = promise.column or evidence.contract.tenancy_of(promise).column
    people = [i for i in identities(evidence) if i.tenants and i.kind != "posing"]
    for text in _LISTENER:
        evidence.drills.run(statement(text), "preparing to listen")
    for me in people:
        others = tuple(sorted({t for i in people if i.tenancy == me.tenancy for t in i.tenants} - me.tenants))
        asked = statement(
            "select 1 from {t} as t where pg_temp.pgc_listen({h}::text, {others}::text[])",
            t=Name.of(str(view)), h=column(holder, "t"), others=others,
        )  # fmt: skip
        outcome = evidence.drills.attempt(me.role, (*me.settings, *_PLANS), asked, after=statement(_HEARD))
        if any(heard for heard, _ in outcome.after):
            return me, asked
    return None


def leak_script(me: Identity, asked: Statement) -> str:
    """SQL for psql that shows it, and undoes it."""
    made = [f"{text};" for text in _LISTENER]
    settings = [f"select pg_catalog.set_config({literal(n)}, {literal(v)}, true);" for n, v in (*me.settings, *_PLANS)]
    become = f"set local role {quote(me.role)};"
    return "\n".join(["begin;", *made, *settings, become, f"{asked};", "reset role;", f"{_HEARD};", "rollback;"])
