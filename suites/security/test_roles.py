"""Roles: none may log in with more than its declared attributes, directly or through a role that it can become."""

from collections.abc import Iterator

from pgconform.catalog import Catalog, Membership, Role
from pgconform.checks import check
from pgconform.contract import Contract
from pgconform.model import Finding
from pgconform.names import quote
from pgconform.privileges import Holder, Privileges, granted_columns
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
    """No client, and no login role but the declared ones, is superuser or has an attribute like BYPASSRLS.

    Such are CREATEROLE, CREATEDB and REPLICATION, too. Whoever logs in with one of them, or becomes a role that has it,
    stands outside every policy.
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


def _objects(catalog: Catalog) -> Iterator[Holder]:
    for kind in (catalog.schemas, catalog.tables, catalog.sequences, catalog.functions, catalog.types):
        yield from kind


def _weighty(catalog: Catalog) -> frozenset[str]:
    """Roles that something is granted to or will be, that own something, that a policy speaks for, or that have an
    attribute; and the server's own."""
    acls = [each.acl for each in (*_objects(catalog), *catalog.default_privileges)]
    acls += [column.acl for table in catalog.tables for column in granted_columns(table)]
    return frozenset(
        {grant.grantee for acl in (*acls, catalog.server.database_acl) for grant in acl}
        | {each.owner for each in (*_objects(catalog), *catalog.default_privileges, *catalog.event_triggers)}
        | {role for table in catalog.tables for policy in table.policies for role in policy.roles}
        | {role.name for role in catalog.roles if role.name.startswith("pg_") or any(_attributes(role).values())}
    )


def client_roles(catalog: Catalog, contract: Contract) -> Iterator[tuple[str, frozenset[str]]]:
    """Client roles."""
    weighty = _weighty(catalog) | set(contract.roles.services)
    yield from ((role, weighty) for role in contract.roles.clients)


def _behind(
    member: Membership, weighty: frozenset[str], contract: Contract, privileges: Privileges
) -> tuple[str, list[str]]:
    """How a membership serves its member, and the roles behind it that matter.

    What a group lets its members inherit all other checks judge as their own; but not what the server's own roles may,
    and not what is there only for who takes a role on.
    """
    inherited = privileges.inherited(member.role)
    if member.set or member.admin:
        taken = privileges.can_take(member.role)
        return "can take on", sorted(inherited.union(*map(privileges.inherited, taken)) & weighty)
    powers = [r for r in sorted(inherited) if r.startswith("pg_") or r in contract.roles.services]
    return "inherits from", powers if member.inherit else []


@check("client-memberships", guide=["muva-18", "vs-24", "muva-42"], when=["gate", "quarterly"], of=client_roles)
def test_no_client_can_become_somebody_else(
    subject: tuple[str, frozenset[str]], catalog: Catalog, contract: Contract, privileges: Privileges
) -> Iterator[Finding]:
    """No client role can take on a role that holds anything, or inherit from one of the server's or the backend's.

    SET ROLE is open to any session. Then grants count that nobody gave to clients, and policies that speak of clients
    are not asked any more. A group whose rights are merely inherited, and another client role, are fine.
    """
    client, weighty = subject
    for member in catalog.memberships:
        if member.member == client and member.role not in contract.roles.clients:
            how, behind = _behind(member, weighty, contract, privileges)
            if behind:
                others = len(set(behind) - {member.role})
                observed = f"it {how} {quote(member.role)}{f', and {others} role(s) behind it' * bool(others)}"
                remedy = leave(client, member.role, privileges)
                yield Finding(quote(client), observed, remedy, detail=quote(member.role))
