"""Functions within reach of clients: only declared ones, with their callers' rights, on a pinned search path."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Function
from pgconform.checks import check
from pgconform.contract import Contract, FunctionPromise
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.subjects import client_functions, declared_overload, functions

AUDIT = ["gate", "quarterly"]


def exposed_functions(catalog: Catalog, contract: Contract) -> Iterator[Function]:
    """Functions in exposed and tenant schemas."""
    wanted = {*contract.schemas.exposed, *contract.schemas.tenant}
    return (f for f in catalog.functions if f.schema in wanted and not f.extension)


def _kind(function: Function) -> str:
    return {"p": "procedure", "a": "aggregate"}.get(function.kind, "function")


@check("function-grants-excess", guide=["muva-9", "muva-42"], when=AUDIT, of=exposed_functions)
def test_no_client_executes_an_undeclared_function(
    function: Function, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role may execute a function that the contract does not open to it.

    The API offers every such function to its callers, and PUBLIC may execute any new function.
    """
    promise = contract.functions.get(str(function))
    if function.returns in ("trigger", "event_trigger"):
        return
    for role in contract.roles.clients:
        held = [h for h in privileges.on(role, function) if h.privilege == "EXECUTE"]
        if held and role not in (promise.execute if promise else ()):
            via = held[0].via if held[0].via in (role, "public") else ""
            name = "public" if via == "public" else quote(via)
            remedy = f"revoke execute on {_kind(function)} {function.signature} from {name};"
            if not via:
                remedy = f"revoke {quote(held[0].via)} from {quote(role)};"
            yield Finding(function.signature, f"{role} may execute it, through {held[0].via}", remedy, detail=role)


@check("function-grants-missing", guide=["muva-9", "muva-42"], when=AUDIT, each=functions)
def test_every_declared_caller_may_execute(
    subject: tuple[str, FunctionPromise], catalog: Catalog, privileges: Privileges
) -> Iterator[Finding]:
    """Every role that the contract names may execute the function.

    What is missing shows itself as "permission denied" in the application.
    """
    function = declared_overload(*subject, catalog)
    for role in subject[1].execute if function else ():
        if function and catalog.role(role) and not privileges.may(role, "EXECUTE", function):
            remedy = f"grant execute on {_kind(function)} {function.signature} to {quote(role)};"
            yield Finding(function.signature, f"{role} may not execute it", remedy, detail=role)


@check("definer-function-exposed", guide=["muva-18", "vs-14", "muva-42"], when=AUDIT, of=client_functions)
def test_no_client_borrows_the_rights_of_an_owner(function: Function, contract: Contract) -> Iterator[Finding]:
    """No function that a client may execute runs with its owner's rights, unless the contract says so.

    A SECURITY DEFINER function reads past every policy: what it filters by is all that keeps tenants apart.
    """
    promise = contract.functions.get(str(function))
    internal = function.schema in contract.schemas.internal
    if function.security_definer and not internal and (promise is None or promise.security != "definer"):
        remedy = f"alter {_kind(function)} {function.signature} security invoker;"
        yield Finding(function.signature, f"it runs as its owner {function.owner}", remedy)


def definer_functions(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Function]:
    """Functions that run as their owner and that a client role can execute."""
    return (f for f in client_functions(catalog, contract, privileges) if f.security_definer)


@check("definer-search-path", guide=["muva-21", "muva-42"], when=AUDIT, of=definer_functions)
def test_every_definer_function_pins_its_search_path(
    function: Function, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Every function that runs as its owner pins a search path on which no client can create.

    Otherwise a caller puts an own table or operator in front of the one that the function means.
    """
    path = function.configuration.get("search_path")
    parts = [p.strip().strip('"') for p in (path or "").split(",") if p.strip()]
    open_to = [s for s in catalog.schemas if s.name in parts]
    writable = [str(s) for s in open_to if any(privileges.may(r, "CREATE", s) for r in contract.roles.clients)]
    if not function.sql_body and (path is None or writable):
        observed = (
            "its search path is not pinned" if path is None else f"clients may create in {', '.join(writable)}"
        )
        remedy = f"alter {_kind(function)} {function.signature} set search_path = '';"
        yield Finding(function.signature, observed, remedy)
