"""Who may do what, from the catalogue alone: through grants, PUBLIC, inherited roles and built-in roles."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from pgconform.acl import LETTERS
from pgconform.catalog import PUBLIC, Catalog, Column, Function, Grant, Schema, Sequence, Table, Type

Holder = Table | Sequence | Schema | Function | Type
SUPERUSER = "(superuser)"  # how a superuser holds what nobody granted
_ALL: dict[type[Holder], tuple[str, ...]] = {
    Table: ("SELECT", "UPDATE", "INSERT", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"),
    Sequence: ("SELECT", "UPDATE", "USAGE"),
    Schema: ("USAGE", "CREATE"),
    Function: ("EXECUTE",),
    Type: ("USAGE",),
}
# What built-in roles hold on everything, whatever its ACL says (PostgreSQL manual, "Predefined Roles"); by name.
_PREDEFINED: dict[str, dict[type[Holder], tuple[str, ...]]] = {
    "pg_maintain": {Table: ("MAINTAIN",)},
    "pg_read_all_data": {Table: ("SELECT",), Sequence: ("SELECT",), Schema: ("USAGE",)},
    "pg_write_all_data": {Table: ("UPDATE", "INSERT", "DELETE"), Sequence: ("UPDATE",), Schema: ("USAGE",)},
}
_ORDER = {name: number for number, name in enumerate(LETTERS.values())}


class Held(NamedTuple):
    """A privilege that a role has.

    ``via`` is who it was granted to: the role itself, ``public``, or a role that it inherits from, the owner
    included (an owner holds privileges by grants too, and may lose them); ``(superuser)`` needs no grant.
    """

    privilege: str
    via: str
    column: str = ""


def granted_columns(table: Table) -> list[Column]:
    """The columns that have privileges of their own."""
    return [column for column in table.columns if column.acl]


class Privileges:
    """Effective privileges in one catalogue; answers are remembered."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._superusers = frozenset(role.name for role in catalog.roles if role.superuser)
        self._inherits: dict[str, list[str]] = defaultdict(list)
        self._sets: dict[str, list[str]] = defaultdict(list)
        self._takes: dict[str, list[str]] = defaultdict(list)
        for membership in catalog.memberships:
            if membership.inherit:
                self._inherits[membership.member].append(membership.role)
            if membership.set:
                self._sets[membership.member].append(membership.role)
            if membership.set or membership.admin:
                self._takes[membership.member].append(membership.role)
        if catalog.role("pg_database_owner"):  # its one member is implicit
            self._inherits[catalog.server.database_owner].append("pg_database_owner")
            self._sets[catalog.server.database_owner].append("pg_database_owner")
        self._closures: dict[tuple[str, int], frozenset[str]] = {}
        self._granted: dict[tuple[str, tuple[Grant, ...]], tuple[Held, ...]] = {}
        self._owning: dict[tuple[str, str], bool] = {}
        self._reached: dict[tuple[str, ...], tuple[Table, ...]] = {}
        self._held: dict[tuple[str, int], tuple[Holder, tuple[Held, ...]]] = {}

    def inherited(self, role: str) -> frozenset[str]:
        """Roles whose privileges it has without SET ROLE: itself, and those that it inherits from.

        All roles for a superuser. PUBLIC is not among them.
        """
        return self._closure(role, self._inherits)

    def can_become(self, role: str) -> frozenset[str]:
        """Roles that it can take on by SET ROLE, itself included; all roles for a superuser."""
        return self._closure(role, self._sets)

    def can_take(self, role: str) -> frozenset[str]:
        """Roles that it can become, at once or after it has granted itself what it may grant (ADMIN OPTION)."""
        return self._closure(role, self._takes)

    def ways(self, role: str, other: str) -> tuple[str, ...]:
        """Roles granted to ``role`` directly, through which it inherits from ``other`` or can take it on."""
        direct = {*self._inherits.get(role, ()), *self._takes.get(role, ())}
        return tuple(sorted(g for g in direct if any(other in self.inherited(each) for each in {g, *self.can_take(g)})))

    def owns(self, role: str, table: Table) -> bool:
        """True when the role can act as the relation's owner: inherit from it, or take on a role that does.

        Superusers on the way do not count: they need no owner's rights.
        """
        key = (role, table.owner)
        if key not in self._owning:
            taken = self.can_take(role) - self._superusers
            self._owning[key] = any(table.owner in self.inherited(each) for each in taken)
        return self._owning[key]

    def may_make_temporary(self, role: str) -> bool:
        """True when the role can create temporary tables in this database."""
        granted = self._through(role, self._catalog.server.database_acl)
        return role in self._superusers or any(held.privilege == "TEMPORARY" for held in granted)

    def on(self, role: str, target: Holder) -> tuple[Held, ...]:
        """What the role holds on an object, columns included, in a fixed order; one entry for each way to it."""
        key = (role, id(target))
        if key not in self._held:
            self._held[key] = target, self._on(role, target)  # the object too: its id must not be used again
        return self._held[key][1]

    def may(self, role: str, privilege: str, target: Holder) -> bool:
        """True when the role holds the privilege on the whole object."""
        return any(held.privilege == privilege and not held.column for held in self.on(role, target))

    def reaches(self, role: str, table: Table) -> bool:
        """True when the role can use the schema and holds any privilege on the relation or on a column of it."""
        schema = self._catalog.schema(table.schema)
        return schema is not None and bool(self.on(role, table)) and self.may(role, "USAGE", schema)

    def reached(self, roles: tuple[str, ...]) -> tuple[Table, ...]:
        """The relations that any of the roles reaches, extensions' own left out, in the catalogue's order."""
        if roles not in self._reached:
            mine, found = [t for t in self._catalog.tables if not t.extension], set[str]()
            for role in roles:
                usable = {schema.name for schema in self._catalog.schemas if self.may(role, "USAGE", schema)}
                found.update(str(t) for t in mine if t.schema in usable and self.on(role, t))
            self._reached[roles] = tuple([t for t in mine if str(t) in found])
        return self._reached[roles]

    def _on(self, role: str, target: Holder) -> tuple[Held, ...]:
        kind = type(target)
        if role in self._superusers:
            return tuple(
                Held(privilege, SUPERUSER)
                for privilege in _ALL[kind]
                if privilege != "MAINTAIN" or self._catalog.server.version >= 170_000
            )
        held = self._through(role, target.acl)
        for column in granted_columns(target) if isinstance(target, Table) else ():
            held += tuple(each._replace(column=column.name) for each in self._through(role, column.acl))
        inherited = self.inherited(role)
        for name, powers in _PREDEFINED.items():
            if name in inherited:
                held += tuple(Held(privilege, name) for privilege in powers.get(kind, ()))
        return held

    def _through(self, role: str, acl: tuple[Grant, ...]) -> tuple[Held, ...]:
        key = (role, acl)
        if key not in self._granted:
            roles = self.inherited(role) | {PUBLIC}
            mine = {Held(grant.privilege, grant.grantee) for grant in acl if grant.grantee in roles}
            self._granted[key] = tuple(sorted(mine, key=lambda held: (_ORDER.get(held.privilege, 99), held)))
        return self._granted[key]

    def _closure(self, role: str, edges: dict[str, list[str]]) -> frozenset[str]:
        if (role, id(edges)) not in self._closures:
            found, pending = {role}, [role]
            if role in self._superusers:
                found.update(each.name for each in self._catalog.roles)
            while pending:
                new = [other for other in edges.get(pending.pop(), ()) if other not in found]
                found.update(new)
                pending += new
            self._closures[role, id(edges)] = frozenset(found)
        return self._closures[role, id(edges)]
