"""Who is a client, who a service, who is privileged: guessed from grants, policies and attributes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgconform.catalog import Role
from pgconform.drafting.seen import Seen

ANONYMOUS = re.compile(r"^(web_)?anon(ymous)?$|^guest$|^public_user$", re.I)
_OF_MEMBERS = re.compile(r"authenticated|member|web_?user|app|client|tenant", re.I)
_OF_SERVICES = re.compile(r"service|backend|worker|admin|cron|job", re.I)


@dataclass(frozen=True)
class Roles:
    """Names of roles, and why each group was made so."""

    clients: tuple[str, ...]
    services: tuple[str, ...]
    privileged: dict[str, tuple[str, ...]]
    why_clients: str
    why_services: str

    @property
    def anonymous(self) -> str:
        return next((role for role in self.clients if ANONYMOUS.match(role)), "")

    @property
    def member(self) -> str:
        """The role of signed-in callers: the one called so, or the first that is not the anonymous one."""
        rest = [role for role in self.clients if role != self.anonymous] or list(self.clients)
        return next((role for role in rest if _OF_MEMBERS.search(role)), rest[0] if rest else "")


def roles(seen: Seen) -> Roles:
    """The roles that the database's own grants and policies speak of."""
    granted = _granted(seen)
    owners = {table.owner for table in seen.stored}
    there = {role.name: role for role in seen.catalog.roles}
    free = [there[name] for name in sorted(granted - owners) if name in there and not there[name].superuser]
    services = [r.name for r in free if r.bypass_row_security or _OF_SERVICES.search(r.name)]
    clients = [r.name for r in free if r.name not in services]
    clients += [n for n in sorted(there) if ANONYMOUS.match(n) and n not in clients and _enters(seen, n)]
    why = "guess: roles that tables are granted to or policies speak of, and that obey policies"
    if not clients:
        clients = _logins(seen, owners)
        why = "guess: nothing is granted to a role that obeys policies; these log in and reach tables through PUBLIC"
    if not clients and owners:
        clients = [min(owners, key=lambda name: (there[name].superuser if name in there else False, name))]
        why = "guess: nothing is granted to anybody, so the application connects as the owner of its tables"
    return Roles(
        tuple(clients), tuple(services), _privileged(seen, clients), why if clients else "no role reaches any table",
        "guess: roles that tables are granted to and that stand outside policies, or are called like a backend's",
    )  # fmt: skip


def _granted(seen: Seen) -> set[str]:
    """Roles that something is granted to on a relation or column, or that a policy names."""
    tables = [table for table in seen.catalog.tables if not table.extension]
    acls = [acl for table in tables for acl in (table.acl, *(column.acl for column in table.columns))]
    named = {grant.grantee for acl in acls for grant in acl}
    return named | {role for table in tables for policy in table.policies for role in policy.roles}


def _enters(seen: Seen, role: str) -> bool:
    """True where a schema was opened to the role by name: roles belong to the whole server."""
    return any(grant.grantee == role for schema in seen.catalog.schemas for grant in schema.acl)


def _logins(seen: Seen, owners: set[str]) -> list[str]:
    return [
        r.name for r in seen.catalog.roles
        if r.login and not r.superuser and not r.bypass_row_security and r.name not in owners
        and not seen.privileges.can_take(r.name) & owners
        and any(seen.privileges.reaches(r.name, table) for table in seen.stored)
    ]  # fmt: skip


def attributes(role: Role) -> tuple[str, ...]:
    """The attributes that a contract's privileged roles may have."""
    had = {
        "SUPERUSER": role.superuser, "BYPASSRLS": role.bypass_row_security, "CREATEROLE": role.create_role,
        "CREATEDB": role.create_database, "REPLICATION": role.replication,
    }  # fmt: skip
    return tuple(name for name, has in had.items() if has)


def _privileged(seen: Seen, clients: list[str]) -> dict[str, tuple[str, ...]]:
    """Login roles with more than ordinary rights, their own or those of a role that they can become."""
    found = {}
    for role in seen.catalog.roles:
        if role.login and role.name not in clients:
            reached = {role.name} if role.superuser else seen.privileges.can_take(role.name)
            has = {a for other in seen.catalog.roles if other.name in reached for a in attributes(other)}
            order = ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")
            found[role.name] = tuple(a for a in order if a in has)
    return {name: has for name, has in found.items() if has}
