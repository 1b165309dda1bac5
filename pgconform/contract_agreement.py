"""Where the parts of a contract do not fit each other: names that nothing declares, columns that are missing.

It looks at the contract alone, never at a database, and says the place of each problem as a path of keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pgconform.contract_operations import BLANKS, PLACES, zone_of
from pgconform.contract_words import choice, place
from pgconform.discreet import is_variable
from pgconform.fixtures.databases import names as references
from pgconform.guides import guides
from pgconform.names import qualified, split
from pgconform.parameters import named
from pgconform.vector_kinds import INDEXABLE, KINDS, metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgconform.contract import Contract, FunctionPromise, TablePromise, Tenancy
    from pgconform.contract_operations import Backups, Procedure
    from pgconform.contract_vectors import Query, Search, Vector
    from pgconform.contract_words import KeyPath, Problem


_PER_TENANT = ("exclusive", "distinct", "determines")  # what is promised of each tenant's rows
PARAMETERS = ("query", "tenant", "count")  # of declared queries


def disagreements(contract: Contract) -> Iterator[Problem]:
    """Every place at which one part of the contract contradicts another, with what to write instead."""
    if "." not in contract.claims_setting.strip("."):
        yield ("claims_setting",), "wanted the name of a setting, with a dot, such as request.jwt.claims"
    for name, session in contract.sessions.items():
        yield from _known(("sessions", name, "role"), session.role, contract.roles.clients, "roles.clients")
    for name, tenancy in contract.tenancies.items():
        yield from _tenancy(contract, ("tenancies", name), tenancy)
    for profile, granted in contract.access.items():
        for role in granted:
            yield from _role(contract, ("access", profile, role), role)
    for name, promise in contract.tables.items():
        yield from _ownership(contract, ("tables", name), name, promise)
        yield from _columns(contract, ("tables", name), promise)
        for column, vector in promise.vectors.items():
            yield from _vector(("tables", name, "vectors", column), vector)
    for name, function in contract.functions.items():
        yield from _function(contract, ("functions", name), function)
    for name, query in contract.queries.items():
        yield from _query(contract, ("queries", name), name, query)
    for n, table in enumerate(contract.trends.tables if contract.trends else ()):
        yield from _known(("trends", "tables", n), table, contract.tenant_tables(), "tables whose rows name a tenant")
    if (metrics := contract.metrics) and metrics.known:
        for metric in metrics.figures:
            yield from _known(("metrics", "figures", metric), metric, metrics.known, "metrics.known")
    for name, procedure in contract.procedures.items():
        yield from _procedure(contract, ("procedures", name), procedure)
    if contract.reference:
        yield from _known(("reference",), contract.reference, references(), "reference databases")
    if contract.guide:
        yield from _known(("guide",), contract.guide, guides(), "guides")
    if contract.backups:
        yield from _places(contract.backups)
    for n, report in enumerate(contract.reports):
        if report.aggregate != "count" and not report.of:
            yield ("reports", n, "of"), f"missing; aggregate = {report.aggregate!r} needs a column"


def _places(backups: Backups) -> Iterator[Problem]:
    """Evidence of backups is looked for somewhere; a variable's name is one, and no address."""
    told = {key: getattr(backups, key) for key in PLACES}
    if not backups.archiver and not any(told.values()):
        yield ("backups",), f"names no place; wanted archiver = true, or one of {', '.join(PLACES)}"
    for key, text in told.items():
        _, env, name = text.partition("env:")
        if env and not is_variable(name):
            yield ("backups", key), "wanted the name of an environment variable after env:, such as env:BACKUPS"
    try:
        zone_of(backups.zone or "UTC")
    except ValueError:
        yield ("backups", "zone"), "there is no such time zone here; wanted one such as UTC or Europe/Madrid"


def _known(path: KeyPath, word: str, accepted: Iterable[str], called: str) -> Iterator[Problem]:
    """A problem where the word is not among the accepted ones."""
    words = list(accepted)
    if word not in words:
        yield path, f"not declared; {choice(word, words, called)}"


def _role(contract: Contract, path: KeyPath, role: str) -> Iterator[Problem]:
    known = [*contract.roles.clients, *contract.roles.services]
    yield from _known(path, role, known, "roles.clients and roles.services")


def _tenancy(contract: Contract, path: KeyPath, tenancy: Tenancy) -> Iterator[Problem]:
    """Its session exists and says who calls; its administrator's role is one of the members' roles."""
    blank = "{user}" if tenancy.members else "{tenant}"
    if session := contract.sessions.get(tenancy.session):
        if not mentions([session.claims, session.settings], blank):
            why = "has members" if tenancy.members else "has no members"
            yield ("sessions", tenancy.session), f"no claim or setting says {blank}, but {place(path)} {why}"
    else:
        yield from _known((*path, "session"), tenancy.session, contract.sessions, "sessions")
    if (members := tenancy.members) and members.admin:
        yield from _known((*path, "members", "admin"), members.admin, members.roles, "roles")
    for key, table in [("registry", tenancy.registry), ("members", members)]:
        if table:
            yield from _declared(contract, (*path, key, "table"), table.table)
    for n, part in enumerate(tenancy.complete):
        yield from _declared(contract, (*path, "complete", n, "table"), part.table)


def _declared(contract: Contract, path: KeyPath, table: str) -> Iterator[Problem]:
    if table not in contract.tables:
        yield path, f"declare the table under [tables], too; {choice(table, contract.tables, 'tables')}"


def mentions(value: Any, blank: str) -> bool:
    """Whether any text in the value has the blank, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    return (
        any(mentions(item, blank) for item in value)
        if isinstance(value, list)
        else blank in str(value).replace(":number", "")
    )


def _ownership(contract: Contract, path: KeyPath, name: str, table: TablePromise) -> Iterator[Problem]:
    """It is clear whose the rows are, and who may reach them."""
    if table.tenancy:
        yield from _known((*path, "tenancy"), table.tenancy, contract.tenancies, "tenancies")
    elif table.holds == "tenant" and len(contract.tenancies) != 1:
        yield (*path, "tenancy"), f"missing; {choice('', contract.tenancies, 'tenancies')}"
    if table.holds in ("user", "child") and not table.column:
        yield (*path, "column"), f"missing; holds = {table.holds!r} needs it"
    if table.holds == "shared" and table.column and not any(getattr(table, key) for key in _PER_TENANT):
        yield (
            (*path, "column"),
            "holds = 'shared' says that rows are nobody's; wanted only with exclusive, distinct or determines",
        )
    if table.holds == "child":
        if not table.parent:
            yield (*path, "parent"), "missing; holds = 'child' needs it"
        else:
            yield from _known((*path, "parent"), table.parent, contract.tables, "tables")
            if _circular(contract, name):
                yield (*path, "parent"), "the parents go round in a circle; one must not hold 'child'"
    profile = table.access or table.holds
    if profile not in contract.access:
        default = "" if table.access else f" (by default the one called {table.holds!r})"
        yield (*path, "access"), f"no such profile{default}; {choice(profile, contract.access, 'access')}"


def _circular(contract: Contract, name: str) -> bool:
    """Whether a chain of parents comes back to the table."""
    seen = set()
    parent = name
    while (table := contract.tables.get(parent)) and table.holds == "child" and parent not in seen:
        seen.add(parent)
        parent = table.parent
    return parent == name and bool(seen)


def _columns(contract: Contract, path: KeyPath, table: TablePromise) -> Iterator[Problem]:
    """Column privileges are for declared roles; columns refer to as many; a tenant's columns have a tenant."""
    yield from _condition((*path, "visible"), table.visible)
    for role in table.columns:
        yield from _role(contract, (*path, "columns", role), role)
    for n, reference in enumerate(table.references):
        if len(reference.columns) != len(reference.to) or not reference.to:
            yield (*path, "references", n, "to"), "wanted as many columns as in columns, at least one"
    if table.holds != "tenant" and not table.column:
        for key in ("exclusive", "determines"):
            if getattr(table, key):
                yield (*path, key), "wanted only where column or holds = 'tenant' says whose a row is"


def _vector(path: KeyPath, vector: Vector) -> Iterator[Problem]:
    """Its type can be compared by its metric, and some index that it allows takes both."""
    if (vector.type, vector.metric) not in KINDS:
        yield (*path, "metric"), f"no distance of {vector.type}; accepted: {', '.join(metrics(vector.type))}"
        return
    if vector.index is None:
        return
    if not (held := vector.indexed_as):
        yield (*path, "index", "cast"), f"no index holds {vector.type} as {vector.index_cast} by {vector.metric}"
        return
    served = KINDS[held].methods
    if not {*served} & {*vector.index.methods}:
        yield (*path, "index", "methods"), f"none has an index of {held[0]} by {held[1]}; accepted: {', '.join(served)}"
    if held[0] != "sparsevec" and vector.dimension > INDEXABLE[held[0]]:  # there, what is not zero counts
        most = f"an index takes {INDEXABLE[held[0]]} dimensions of {held[0]}"
        yield (*path, "index"), f"{most}; write index = false" + (", or cast = 'bit' in it" if held[0] != "bit" else "")


def _function(contract: Contract, path: KeyPath, function: FunctionPromise) -> Iterator[Problem]:
    """Declared roles execute it; a search is over a declared vector, by arguments that it has."""
    for n, role in enumerate(function.execute):
        yield from _role(contract, (*path, "execute", n), role)
    if function.search:
        yield from _search(contract, (*path, "search"), function, function.search)


def _search(contract: Contract, path: KeyPath, function: FunctionPromise, search: Search) -> Iterator[Problem]:
    """It is over a declared vector, by arguments that the function has, and every one without a default is given."""
    yield from _known((*path, "vector"), search.vector, _vectors(contract), "vectors")
    arguments = [argument.name for argument in function.arguments]
    meant = []
    for key in ("query", "tenant", "threshold", "count"):
        if (name := getattr(search, key)) or key == "query":
            yield from _known((*path, key), name, arguments, "arguments")
            meant.append(name)
    for key, names in (("given", search.given), ("filters", search.filters)):
        for name in names:
            yield from _known((*path, key, name), name, arguments, "arguments")
            if name in meant:
                yield (*path, key, name), "has its meaning already; name it once"
            meant.append(name)
    spelled = set(meant) <= set(arguments)
    for name in (a.name for a in function.arguments if spelled and a.default is None and a.name not in meant):
        accepted = "name it as tenant, threshold or count, under filters with its column, or under given with a value"
        yield path, f"argument {name} has no default, and nothing says what to pass; {accepted}"
    yield from _condition((*path, "where"), search.where)


def _condition(path: KeyPath, text: str) -> Iterator[Problem]:
    """The text is one SQL expression, whole."""
    if text:
        from pgconform.expression_parser import single  # few contracts need the grammar
        from pgconform.expression_tree import ExpressionError

        try:
            single(f"{text}\nor true")
        except ExpressionError:
            yield path, "wanted one SQL condition on the table's columns, such as deleted_at is null"


def _vectors(contract: Contract) -> list[str]:
    return [f"{name}.{qualified(column)}" for name, table in contract.tables.items() for column in table.vectors]


def _query(contract: Contract, path: KeyPath, name: str, query: Query) -> Iterator[Problem]:
    """It has a simple name, is over a declared vector, and every parameter in it is one that can be bound."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        yield path, "wanted a name of lower-case letters, digits, - and _: a query is no object of the database"
    yield from _known((*path, "vector"), query.vector, _vectors(contract), "vectors")
    if not query.execute:
        yield (*path, "execute"), "wanted the roles that send it"
    for n, role in enumerate(query.execute):
        yield from _role(contract, (*path, "execute", n), role)
    told = named(query.sql)
    accepted_words = (*PARAMETERS, *query.filters)
    unknown = [word if word.startswith("$") else f":{word}" for word in told if word not in accepted_words]
    if unknown:
        accepted = ", ".join(f":{known}" for known in accepted_words)
        yield (*path, "sql"), f"unknown parameter {', '.join(unknown)}; accepted: {accepted}"
    elif "query" not in told:
        yield (*path, "sql"), "wanted :query in it, where the vector is"
    elif "count" not in told and query.default_count is None:
        yield (*path, "default_count"), "missing; wanted how many rows it returns, or :count in sql"
    for name in query.filters:
        if name not in told or name in PARAMETERS:
            yield (
                (*path, "filters", name),
                f"wanted a parameter :{name} in sql, which none of {', '.join(PARAMETERS)} is",
            )
    yield from _condition((*path, "where"), query.where)


# What a procedure of each kind needs besides the text that is run.
_NEEDED = {"fix": "changes", "import": "rows"}


def _procedure(contract: Contract, path: KeyPath, procedure: Procedure) -> Iterator[Problem]:
    """It has one text with its kind's blanks, a declared role, and speaks of what the contract declares."""
    text = procedure.call or procedure.script
    if bool(procedure.call) == bool(procedure.script):
        yield (*path, "call"), "wanted one of call and script"
    elif not text.startswith("file:"):
        for blank in BLANKS[procedure.kind]:
            if f"{{{blank}}}" not in text:
                yield (*path, "call"), f"wanted {{{blank}}} in it; kind = {procedure.kind!r} fills it in"
    if procedure.role:
        yield from _role(contract, (*path, "role"), procedure.role)
    needed = _NEEDED.get(procedure.kind)
    if needed and not getattr(procedure, needed):
        yield (*path, needed), f"missing; kind = {procedure.kind!r} needs it"
    if procedure.tenancy:
        yield from _known((*path, "tenancy"), procedure.tenancy, contract.tenancies, "tenancies")
    elif procedure.kind != "archive" and len(contract.tenancies) != 1:
        yield (*path, "tenancy"), f"missing; {choice('', contract.tenancies, 'tenancies')}"
    moved = [name for name, table in contract.tables.items() if table.retention and table.retention.archive]
    for n, table in enumerate(procedure.tables or [""] * (procedure.kind == "archive" and not moved)):
        yield from _known((*path, "tables", n), table, moved, "tables with a retention and an archive")
    named = [child.table for child in procedure.children] + [child.archive for child in procedure.children]
    for table in filter(None, [*named, *procedure.changes]):
        yield from _declared(contract, path, table)
    for key, field in procedure.rows.items():
        schema, table, _ = split(field.column)
        yield from _declared(contract, (*path, "rows", key, "column"), qualified(schema, table))
    tenancy = contract.tenancies.get(procedure.tenancy or next(iter(contract.tenancies), ""))
    if procedure.kind in ("merge", "onboard", "import") and tenancy and not (tenancy.registry and tenancy.members):
        yield (*path, "tenancy"), f"kind = {procedure.kind!r} needs one with a registry and members"
    elif procedure.retires == "inactive" and tenancy and tenancy.registry and not tenancy.registry.active:
        yield (*path, "retires"), "retires = 'inactive' needs a registry that says by active which tenants are"
