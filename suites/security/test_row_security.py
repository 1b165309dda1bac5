"""Row security: switched on wherever a client can reach, for whoever a client can become, and behind views."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Role, Table
from pgconform.checks import check
from pgconform.contract import Contract, TablePromise
from pgconform.database import role_text
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.remedies import noun
from pgconform.subjects import promise_of, reachable_tables

EVERY_AUDIT = ["gate", "weekly", "quarterly"]
FEW = 3  # relations that a finding names


@check("row-security-enabled", guide=["vs-13", "vs-32", "muva-42"], when=EVERY_AUDIT, of=reachable_tables)
def test_every_reachable_table_has_row_security(table: Table) -> Iterator[Finding]:
    """Row-level security is on for every table that a client role can reach, partitions included.

    Without it, whoever holds the public API key reads and writes every tenant's rows.
    """
    if table.kind in ("table", "partitioned") and not table.row_security:
        remedy = f"alter table {table} enable row level security;"
        yield Finding(str(table), "row-level security is off", remedy)


@check("row-security-forced", guide=["vs-32", "muva-42"], when=["gate", "quarterly"], of=reachable_tables)
def test_no_client_can_become_an_owner_without_force(
    table: Table, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Row-level security is forced on every table whose owner is a role that clients can become.

    A table's owner is exempt from its policies, and so is everybody who inherits from the owner or can take on a
    role that does.
    """
    becoming = [role for role in contract.roles.clients if privileges.owns(role, table)]
    if table.kind in ("table", "partitioned") and becoming and not table.forced:
        remedy = f"alter table {table} force row level security;"
        yield Finding(str(table), f"{', '.join(becoming)} can act as its owner {table.owner}", remedy)


def services(catalog: Catalog, contract: Contract) -> Iterator[Role]:
    """Service roles that exist."""
    return filter(None, map(catalog.role, contract.roles.services))


def _hides(table: Table, role: Role, promise: TablePromise, contract: Contract, privileges: Privileges) -> bool:
    """True where a role holds a declared privilege, and no policy lets it use that."""
    exempt = role.superuser or role.bypass_row_security or (privileges.owns(role.name, table) and not table.forced)
    held = set() if exempt or table.parent else {h.privilege for h in privileges.on(role.name, table)}
    named = {"public", *privileges.inherited(role.name)}
    open_to = {p.command for p in table.policies if p.permissive and not named.isdisjoint(p.roles)}
    used = {command.upper() for command in contract.commands(promise, role.name)} & held
    return bool(table.row_security and used and "ALL" not in open_to and used - open_to)


@check("services-unhindered", guide=["muva-9", "vs-14"], when=EVERY_AUDIT, of=services)
def test_row_security_lets_services_through(
    role: Role, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """Row-level security hides no rows from services that the contract gives them.

    A backend that lost its exemption finds nothing, changes nothing, and is told of no error.
    """
    promised = ((t, p) for t in catalog.tables if (p := promise_of(catalog, contract, t)))
    hidden = [str(t) for t, promise in promised if _hides(t, role, promise, contract, privileges)]
    if hidden:
        told = f"{', '.join(hidden[:FEW])}{f' and {len(hidden) - FEW} more' if len(hidden) > FEW else ''}"
        observed = f"it lacks BYPASSRLS, and no policy gives it what it is to do in {told}"
        yield Finding(quote(role.name), observed, f"alter role {quote(role.name)} bypassrls;")


def reachable_views(contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Views, materialized views and foreign tables that a client role can reach."""
    for table in reachable_tables(contract, privileges):
        if table.kind in ("view", "materialized", "foreign"):
            yield table


def _leaks(
    view: Table, catalog: Catalog, privileges: Privileges, caller: str = "", seen: frozenset[str] = frozenset()
) -> Iterator[tuple[Table, Table]]:
    """Tables that are read past their policies, each with the view that does it: this one or one behind it.

    A security_invoker view asks as whoever asked at the outset, also behind another view (PostgreSQL manual, CREATE
    VIEW); behind a materialized view that is its owner. '' is a client.
    """
    reader = caller if _asks_as_caller(view) else view.owner
    for name in view.reads:
        table = catalog.table(name)
        if table is None or name in seen:
            continue
        if table.kind in ("view", "materialized"):
            asks = reader if view.kind == "materialized" else caller
            yield from _leaks(table, catalog, privileges, asks, seen | {name})
        elif table.row_security and reader and _exempt(reader, table, catalog, privileges):
            yield table, view


def _exempt(owner: str, table: Table, catalog: Catalog, privileges: Privileges) -> bool:
    """True when the owner of a view reads the table past its policies."""
    role = catalog.role(owner)
    bypasses = role is not None and (role.superuser or role.bypass_row_security)
    return bypasses or (table.owner in privileges.inherited(owner) and not table.forced)


def _asks_as_caller(view: Table) -> bool:
    return view.kind == "view" and view.options.get("security_invoker", "").lower() in ("true", "on", "yes", "1")


@check("view-row-security", guide=["vs-13", "muva-18", "muva-42"], when=EVERY_AUDIT, of=reachable_views)
def test_no_reachable_view_reads_past_row_security(
    view: Table, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No view that a client can reach shows rows past the row-level security of the tables behind it.

    A view asks as its owner unless it is a security_invoker view; a materialized view and a foreign table have no
    row-level security at all.
    """
    leaks = [(t, by) for t, by in _leaks(view, catalog, privileges) if not _shared(t, catalog, contract)]
    if _shared(view, catalog, contract) or not (leaks or view.kind == "foreign"):
        return
    shown = ", ".join(sorted({f"{table} as {by.owner} sees it" for table, by in leaks}))
    held = {(r, h.via) for r in contract.roles.clients for h in privileges.on(r, view)}
    remedy = f"revoke all on {view} from {role_text(sorted({via for _, via in held}))};"
    readable = all(_reads(role, table, privileges) for role, _ in held for table, _ in leaks)
    if readable and leaks and all(by.kind == "view" for _, by in leaks) and catalog.server.version >= 150_000:
        asking = sorted({f"alter view {by} set (security_invoker = true);" for _, by in leaks})
        remedy = "\n".join(asking)
    yield Finding(str(view), f"the {noun(view)} {f'shows {shown}' if leaks else 'has no row security'}", remedy)


def _shared(table: Table, catalog: Catalog, contract: Contract) -> bool:
    promise = promise_of(catalog, contract, table)
    return promise is not None and promise.holds == "shared"


def _reads(role: str, table: Table, privileges: Privileges) -> bool:
    """True when a role may ask the table itself, so that a view of it can ask as its caller."""
    return any(held.privilege == "SELECT" for held in privileges.on(role, table))
