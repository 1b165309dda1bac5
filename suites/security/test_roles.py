"""Roles: none may log in with more than its declared attributes, directly or through a role that it can become."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Role
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.privileges import Privileges
from pgconform.remedies import leave


def _attributes(role: Role) -> dict[str, bool]:
    return {
        "SUPERUSER": role.superuser, "BYPASSRLS": role.bypass_row_security, "CREATEROLE": role.create_role,
        "CREATEDB": role.create_database, "REPLICATION": role.replication,
    }  # fmt: skip


def declared_roles(contract: Contract) -> Iterator[str]:
    """Roles that the contract names as clients and services."""
    yield from (*contract.roles.clients, *contract.roles.services)


@check("roles-exist", guide=["muva-9", "muva-42"], when=["gate"], each=declared_roles)
def test_every_declared_role_exists(role: str, catalog: Catalog) -> Iterator[Finding]:
    """Every client and service role of the contract exists.

    A role that is not there, or is called otherwise here, would pass every question about what it may do.
    """
    if catalog.role(role) is None:
        yield Finding(quote(role), "the role does not exist", f"create role {quote(role)} nologin;")


# Predefined roles that stand outside every policy (PostgreSQL manual, "Predefined Roles").
POWERS = (
    "pg_read_all_data", "pg_write_all_data", "pg_read_server_files", "pg_write_server_files",
    "pg_execute_server_program", "pg_maintain",
)  # fmt: skip


def judged_roles(catalog: Catalog, contract: Contract) -> Iterator[Role]:
    """Roles that may log in, and those that the API becomes for its callers."""
    return (role for role in catalog.roles if role.login or role.name in contract.roles.clients)


def _powers(role: Role, name: str, catalog: Catalog, contract: Contract) -> list[str]:
    """What another role, or the role itself, has that stands outside every policy."""
    other = catalog.role(name)
    held = [attribute for attribute, has in (_attributes(other) if other else {}).items() if has]
    return held + [name] * (name in POWERS and role.name in contract.roles.clients)


@check("privileged-roles", guide=["vs-33", "muva-42"], when=["gate", "quarterly"], of=judged_roles)
def test_only_declared_roles_are_privileged(
    role: Role, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client, and no login role but the declared ones, is superuser or has BYPASSRLS, CREATEROLE, CREATEDB or
    REPLICATION.

    Whoever logs in with one of them, or becomes a role that has it, stands outside every policy.
    """
    allowed = contract.roles.privileged.get(role.name, ())
    through = [c for c in contract.roles.clients if c in privileges.can_take(role.name) and c != role.name]
    theirs = set().union(*(privileges.can_take(client) for client in through))  # found with the client itself
    for name in sorted(privileges.can_take(role.name) - theirs if not role.superuser else {role.name}):
        for attribute in [a for a in _powers(role, name, catalog, contract) if a not in allowed]:
            own = name == role.name
            remedy = f"alter role {quote(name)} no{attribute.lower()};" if own else leave(role.name, name, privileges)
            if own and name in contract.roles.services:  # it needs the attribute, not the login
                remedy = f"alter role {quote(name)} nologin;"
            how = "" if own else f" through {name}"
            yield Finding(quote(role.name), f"it has {attribute}{how}", remedy, detail=f"{attribute}{how}")
