"""Functions: there, with the declared arguments, defaults and properties, and without a twin."""

from collections.abc import Iterator

from pgconform.catalog import Catalog
from pgconform.checks import check
from pgconform.contract import FunctionPromise
from pgconform.expressions import constant
from pgconform.model import Finding, Nothing
from pgconform.names import literal, schemas_of
from pgconform.subjects import Searching, declared_overload, functions, present_overload, recreate, searches

Subject = tuple[str, FunctionPromise]
VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}
PARALLEL = {"s": "safe", "r": "restricted", "u": "unsafe"}


@check("function-exists", guide=["muva-21", "muva-38"], when=["gate", "daily", "quarterly"], each=functions)
def test_every_declared_function_exists(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Every declared function exists in its schema.

    Without its search function an application finds nothing, and says so to no one.
    """
    if not catalog.functions_named(subject[0]):
        yield Finding(subject[0], "the function does not exist", recreate(*subject))


@check("function-signature", guide=["muva-23"], when=["gate"], each=functions)
def test_every_declared_function_has_its_arguments(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """The function has the declared arguments: names, types and order.

    Clients call it by argument name; a renamed one fails, and one of another type changes what it means.
    """
    found = catalog.functions_named(subject[0])
    if not found:
        raise Nothing(f"{subject[0]} does not exist")
    if declared_overload(*subject, catalog) is None:
        observed = f"its arguments are ({found[0].identity})"
        yield Finding(subject[0], observed, recreate(*subject, *found))


@check("function-overload", guide=["muva-23"], when=["gate"], each=functions)
def test_no_declared_function_has_a_twin(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """No other function has the same name in the same schema.

    A call that fits two of them is refused as ambiguous, and a GRANT or DROP by name as well.
    """
    found = present_overload(*subject, catalog)
    for other in catalog.functions_named(subject[0]):
        if other.oid != found.oid:
            kind = "procedure" if other.kind == "p" else "function"
            remedy = f"drop {kind} {other.signature};"
            yield Finding(str(other), f"another one takes ({other.identity})", remedy, detail=other.identity)


@check("function-defaults", guide=["muva-23"], when=["gate"], each=functions)
def test_every_declared_function_has_its_defaults(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Every argument has the declared default, and none where none is declared.

    Callers leave arguments out: what they then mean is part of the function's promise.
    """
    function = present_overload(*subject, catalog)
    for argument, promise in zip(function.inputs, subject[1].arguments, strict=True):
        if constant(argument.default) != constant(None if promise.default is None else str(promise.default)):
            observed = f"{argument.name} defaults to {argument.default or 'nothing'}, not {promise.default}"
            yield Finding(function.signature, observed, recreate(*subject, function), detail=argument.name)


@check("search-defaults", guide=["muva-5"], when=["gate"], each=searches)
def test_every_search_has_its_threshold_and_count(subject: Searching, catalog: Catalog) -> Iterator[Finding]:
    """Search functions default to the declared threshold and number of results.

    A threshold that drifted lets noise through or hides the right rows, without any error.
    """
    spec, function = subject.promise.search, present_overload(subject.function, subject.promise, catalog)
    if not spec:
        return
    for name, wanted in ((spec.threshold, spec.default_threshold), (spec.count, spec.default_count)):
        found = next((a.default for a in function.inputs if a.name == name), None)
        if wanted is not None and constant(found) != constant(str(wanted)):
            remedy = recreate(subject.function, subject.promise, function)
            yield Finding(function.signature, f"{name} defaults to {found or 'nothing'}, not {wanted}", remedy, name)


@check("function-properties", guide=["muva-21"], when=["daily", "gate"], each=functions)
def test_every_declared_function_has_its_properties(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Volatility, parallel safety and security mode are the declared ones.

    A search that is VOLATILE is never inlined or run in parallel; one that is DEFINER reads past the policies.
    """
    function, promise = present_overload(*subject, catalog), subject[1]
    kind = "procedure" if function.kind == "p" else "function"
    security = "definer" if function.security_definer else "invoker"
    for found, wanted, clause in (
        (VOLATILITY[function.volatility], promise.volatility, promise.volatility),
        (PARALLEL[function.parallel], promise.parallel, f"parallel {promise.parallel}"),
        (security, promise.security, f"security {promise.security}"),
    ):
        if wanted is not None and found != wanted:
            remedy = f"alter {kind} {function.signature} {clause};"
            yield Finding(function.signature, f"it is {found}, not {wanted}", remedy, detail=wanted)


def _schemas(path: str) -> list[str]:
    """The schemas of a search path; pg_temp at its end only says that nothing temporary comes first."""
    found = schemas_of(path)
    return found[:-1] if found[-1:] == ["pg_temp"] else found


@check("function-search-path", guide=["muva-21"], when=["daily", "gate"], each=functions)
def test_every_declared_function_has_its_search_path(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """The function's search path is pinned to the declared value.

    Otherwise what a name in its body means depends on who calls it.
    """
    function, wanted = present_overload(*subject, catalog), subject[1].search_path
    found = function.configuration.get("search_path")
    if wanted is not None and (found is None or _schemas(found) != _schemas(wanted)):
        observed = "it is not pinned" if found is None else f"it is {found}"
        last = ["pg_temp"] if function.security_definer and _schemas(wanted) else []
        value = ", ".join(map(literal, [*_schemas(wanted), *last] or [""]))
        kind = "procedure" if function.kind == "p" else "function"
        yield Finding(function.signature, observed, f"alter {kind} {function.signature} set search_path = {value};")
