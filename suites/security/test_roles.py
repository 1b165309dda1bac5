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


def login_roles(catalog: Catalog) -> Iterator[Role]:
    """Roles that may log in."""
    return (role for role in catalog.roles if role.login)


@check("privileged-roles", guide=["vs-33", "muva-42"], when=["gate", "quarterly"], of=login_roles)
def test_only_declared_roles_are_privileged(
    role: Role, catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No login role but the declared ones is superuser or has BYPASSRLS, CREATEROLE, CREATEDB or REPLICATION.

    Whoever logs in with one of them, or becomes a role that has it, stands outside every policy.
    """
    allowed = contract.roles.privileged.get(role.name, ())
    for name in sorted(privileges.can_take(role.name) if not role.superuser else {role.name}):
        other = catalog.role(name)
        for attribute in [a for a, held in (_attributes(other) if other else {}).items() if held and a not in allowed]:
            own = name == role.name
            remedy = f"alter role {quote(name)} no{attribute.lower()};" if own else leave(role.name, name, privileges)
            if own and name in contract.roles.services:  # it needs the attribute, not the login
                remedy = f"alter role {quote(name)} nologin;"
            how = "" if own else f" through {name}"
            yield Finding(quote(role.name), f"it has {attribute}{how}", remedy, detail=f"{attribute}{how}")
