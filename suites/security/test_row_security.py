"""Row security: switched on wherever a client can reach, for whoever a client can become, and behind views."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Table
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.privileges import Privileges
from pgconform.subjects import promise_of, reachable_tables

EVERY_AUDIT = ["gate", "weekly", "quarterly"]


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

    A table's owner is exempt from its policies, and so is everybody who can take the owner's role.
    """
    becoming = [role for role in contract.roles.clients if table.owner in privileges.can_become(role)]
    if table.kind in ("table", "partitioned") and becoming and not table.forced:
        remedy = f"alter table {table} force row level security;"
        yield Finding(str(table), f"its owner {table.owner} can be taken on by {', '.join(becoming)}", remedy)


def reachable_views(catalog: Catalog, contract: Contract, privileges: Privileges) -> Iterator[Table]:
    """Views, materialized views and foreign tables that a client role can reach."""
    for table in reachable_tables(catalog, contract, privileges):
        if table.kind in ("view", "materialized", "foreign"):
            yield table


def _protected(view: Table, catalog: Catalog, seen: frozenset[str] = frozenset()) -> list[Table]:
    """Tables with row security that a view reads, directly or through views that do not ask as their caller."""
    found: list[Table] = []
    for name in view.reads:
        table = catalog.table(name)
        if table is None or name in seen:
            continue
        found += [table] if table.row_security else []
        found += _protected(table, catalog, seen | {name}) if table.kind in ("view", "materialized") else []
    return found


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
    promise = promise_of(catalog, contract, view)
    hidden = [t for t in _protected(view, catalog) if _exempt(view.owner, t, catalog, privileges)]
    if (promise and promise.holds == "shared") or _asks_as_caller(view) or not (hidden or view.kind == "foreign"):
        return
    behind = f"shows {', '.join(map(str, hidden))} as {view.owner} sees it" if hidden else "has no row security"
    clients = ", ".join([r for r in contract.roles.clients if privileges.reaches(r, view)])
    remedy = f"revoke all on {view} from public, {clients};"
    if view.kind == "view" and catalog.server.version >= 150_000:
        remedy = f"alter view {view} set (security_invoker = true);"
    yield Finding(str(view), f"the {view.kind} {behind}", remedy)
