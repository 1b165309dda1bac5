"""Functions within reach of clients: only declared ones, with their callers' rights, on a pinned search path."""

import re
from collections.abc import Iterator

from pgconform.bodies import uncommented
from pgconform.callees import functions_called
from pgconform.catalog import Catalog, Function, Schema
from pgconform.checks import Evidence, check
from pgconform.contract import Contract, FunctionPromise
from pgconform.memberships import names
from pgconform.model import Finding, Severity
from pgconform.names import quote, remark, schemas_of, split
from pgconform.privileges import Privileges
from pgconform.remedies import revoke, unless_asked
from pgconform.subjects import client_functions, functions, present_overload, promise_for, reachable_tables

AUDIT = ["gate", "quarterly"]


def exposed_functions(catalog: Catalog, contract: Contract) -> Iterator[Function]:
    """Functions in exposed and tenant schemas."""
    wanted = {*contract.schemas.exposed, *contract.schemas.tenant}
    return (f for f in catalog.functions if f.schema in wanted and not f.extension)


def _kind(function: Function) -> str:
    return "procedure" if function.kind == "p" else "function"  # GRANT takes an aggregate for a function


@check("function-grants-excess", guide=["muva-9", "muva-42"], when=AUDIT, of=exposed_functions)
def test_no_client_executes_an_undeclared_function(
    function: Function, evidence: Evidence, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role may execute a function that the contract does not open to it.

    The API offers every such function to its callers, and PUBLIC may execute any new function.
    """
    promise = promise_for(function, evidence.catalog, contract)
    if function.returns in ("trigger", "event_trigger"):
        return
    for role in contract.roles.clients:
        held = [h for h in privileges.on(role, function) if h.privilege == "EXECUTE"]
        if held and role not in (promise.execute if promise else ()):
            taken = revoke(held[0], f"{_kind(function)} {function.signature}", role, privileges)
            remedy = unless_asked(evidence, function, taken)
            yield Finding(function.signature, f"{role} may execute it, through {held[0].via}", remedy, detail=role)


@check("function-grants-missing", guide=["muva-9", "muva-42"], when=AUDIT, each=functions)
def test_every_declared_caller_may_execute(
    subject: tuple[str, FunctionPromise], catalog: Catalog, privileges: Privileges
) -> Iterator[Finding]:
    """Every role that the contract names may execute the function.

    What is missing shows itself as "permission denied" in the application.
    """
    function = present_overload(*subject, catalog)
    for role in subject[1].execute:
        if catalog.role(role) and not privileges.may(role, "EXECUTE", function):
            remedy = f"grant execute on {_kind(function)} {function.signature} to {quote(role)};"
            yield Finding(function.signature, f"{role} may not execute it", remedy, detail=role)


def _may_be_definer(function: Function, catalog: Catalog, contract: Contract) -> bool:
    promise = promise_for(function, catalog, contract)
    return function.schema in contract.schemas.internal or (promise is not None and promise.security == "definer")


@check("definer-function-exposed", guide=["muva-18", "vs-14", "muva-42"], when=AUDIT, of=client_functions)
def test_no_client_borrows_the_rights_of_an_owner(
    function: Function, evidence: Evidence, contract: Contract
) -> Iterator[Finding]:
    """No function that a client may execute runs with its owner's rights, unless the contract says so.

    A SECURITY DEFINER function reads past every policy: what it filters by is all that keeps tenants apart.
    """
    if function.security_definer and not _may_be_definer(function, evidence.catalog, contract):
        own = f"alter {_kind(function)} {function.signature} security invoker;"
        remedy = unless_asked(evidence, function, own)
        observed = f"it runs as its owner {function.owner}, and the contract does not say security = 'definer'"
        yield Finding(function.signature, observed, remedy)


def _path(function: Function) -> list[str] | None:
    """The schemas of its pinned search path, or None where it has none."""
    path = function.configuration.get("search_path")
    return None if path is None else schemas_of(path)


def _flaw(function: Function, catalog: Catalog, contract: Contract, privileges: Privileges) -> tuple[str, str]:
    """What clients can put in front on a function's search path, and a better one to set; '' twice for a good one.

    One that is not pinned finds by the caller's path what its body names without a schema: it has to go on doing so.
    """
    pinned, installed = _path(function), [e.schema for e in catalog.extensions if e.schema != "pg_catalog"]
    promise = promise_for(function, catalog, contract)
    declared = None if promise is None or promise.search_path is None else schemas_of(promise.search_path)
    callers = list(dict.fromkeys([*contract.schemas.exposed, function.schema, *installed]))
    path = next(known for known in (pinned, declared, callers) if known is not None)
    clients, others = contract.roles.clients, [name for name in path if name != "pg_catalog"]
    open_to = [s for s in catalog.schemas if s.name in others and any(privileges.may(r, "CREATE", s) for r in clients)]
    better = [name for name in path if name not in ("pg_temp", *(s.name for s in open_to))]
    kept = ", ".join(map(quote, [*better, "pg_temp"]))
    if pinned is None:
        return "its search path is not pinned", kept
    if open_to:
        return f"clients may create in {', '.join(map(str, open_to))}, which is on its search path", kept
    if others and others[-1] != "pg_temp" and any(map(privileges.may_make_temporary, clients)):
        return "clients' temporary tables come first on its search path", kept
    return "", ""


def definer_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions that run as their owner and that a client role can execute."""
    return (f for f in client_functions(catalog, contract, privileges) if f.security_definer)


def borrowed_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions that run as their owner and that a client role can execute, itself or by a trigger."""
    yield from definer_functions(catalog, contract, privileges)
    fired = {trigger.function for table in reachable_tables(contract, privileges) for trigger in table.triggers}
    yield from (
        f for f in catalog.functions
        if f.security_definer and f.returns == "trigger" and not f.extension and str(f) in fired
    )  # fmt: skip


@check("definer-search-path", guide=["muva-21", "muva-42"], when=AUDIT, of=borrowed_functions)
def test_every_definer_function_pins_its_search_path(
    function: Function, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Every function that runs as its owner pins a search path on which no client can create.

    Otherwise a caller puts an own table or operator in front of the one that the function means. Temporary tables come
    first on every path that does not end with pg_temp.
    """
    observed, better = _flaw(function, catalog, contract, privileges)
    if observed and not function.sql_body:
        remedy = f"alter {_kind(function)} {function.signature} set search_path = {better};"
        yield Finding(function.signature, observed, remedy)


# By what a body knows its caller. Within it, current_user is the owner.
_CALLER = re.compile(r"\bcurrent_setting\b|\bauth\W*\.\W*(?:uid|jwt|role|email)\b|\bsession_user\b", re.I)


def trusted_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions that run as their owner, as the contract lets them, and that a client role can execute."""
    found = definer_functions(catalog, contract, privileges)
    return (function for function in found if _may_be_definer(function, catalog, contract))


def _owned(function: Function, catalog: Catalog, contract: Contract) -> list[str]:
    """Tables with tenants' or users' rows that the function names, itself or in what it calls without asking."""
    texts = [uncommented(f.body) for f in (function, *functions_called(function, catalog))]
    if any(map(_CALLER.search, texts)):
        return []
    owned = [name for name, promise in contract.tables.items() if promise.holds in ("tenant", "user", "child")]
    return [name for name in owned if names(texts, split(name)[-1])]


@check("definer-asks-caller", guide=["muva-18", "vs-14", "muva-42"], when=AUDIT, of=trusted_functions,
       severity=Severity.SHOULD)  # fmt: skip
def test_every_definer_function_asks_who_calls(
    function: Function, catalog: Catalog, contract: Contract
) -> Iterator[Finding]:
    """Every function that runs as its owner and names tables of tenants' or users' rows asks who calls.

    Row security does not hold there, and an argument is whatever the caller says: only what the session carries tells
    whose rows are meant.
    """
    if tables := _owned(function, catalog, contract):
        observed = f"it names {', '.join(tables)}, and neither the session's user nor its claims"
        advice = "have it filter by the session's user or claims; or, where no policy calls it, take it from clients"
        yield Finding(function.signature, observed, remark(advice))


def functions_by_schema(catalog: Catalog) -> Iterator[tuple[Schema, tuple[Function, ...]]]:
    """Schemas of the database, with their functions."""
    found: dict[str, tuple[Function, ...]] = {}
    for function in catalog.functions:
        if function.leakproof and not function.extension:
            found[function.schema] = (*found.get(function.schema, ()), function)
    yield from ((schema, found.get(schema.name, ())) for schema in catalog.schemas if not schema.extension)


@check("leakproof-functions", guide=["muva-18", "vs-24", "muva-42"], when=AUDIT, of=functions_by_schema)
def test_no_function_is_believed_to_be_leakproof(
    subject: tuple[Schema, tuple[Function, ...]], contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No function that a client may execute, or that stands in an exposed schema, is LEAKPROOF.

    The planner runs such a function on rows before it asks the policies about them. That it tells nobody what it was
    given is merely somebody's word: one error message, one log line is enough.
    """
    schema, leakproof = subject
    exposed = schema.name in (*contract.schemas.exposed, *contract.schemas.tenant)
    usable = [role for role in contract.roles.clients if privileges.may(role, "USAGE", schema)]
    for function in leakproof:
        callers = [role for role in usable if privileges.may(role, "EXECUTE", function)]
        if callers or exposed:
            who = f"{', '.join(callers)} may execute it" if callers else "its schema is exposed"
            remedy = f"alter function {function.signature} not leakproof;"
            yield Finding(function.signature, f"it is LEAKPROOF, and {who}", remedy)
