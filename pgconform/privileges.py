"""Who may do what, from the catalogue alone: through grants, PUBLIC, inherited roles and ownership."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from pgconform.acl import LETTERS
from pgconform.catalog import PUBLIC, Catalog, Function, Grant, Schema, Sequence, Table

Holder = Table | Sequence | Schema | Function
_ALL = {
    Table: ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"),
    Sequence: ("SELECT", "UPDATE", "USAGE"),
    Schema: ("USAGE", "CREATE"),
    Function: ("EXECUTE",),
}


class Held(NamedTuple):
    """A privilege that a role has; ``via`` is the role itself, ``public``, a role it inherits from, or ``owner``."""

    privilege: str
    via: str
    column: str = ""


class Privileges:
    """Effective privileges in one catalogue; answers are remembered."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._inherits: dict[str, list[str]] = defaultdict(list)
        self._sets: dict[str, list[str]] = defaultdict(list)
        for membership in catalog.memberships:
            if membership.inherit:
                self._inherits[membership.member].append(membership.role)
            if membership.set:
                self._sets[membership.member].append(membership.role)
        self._closures: dict[tuple[str, bool], frozenset[str]] = {}
        self._grants: dict[tuple[str, tuple[Grant, ...]], tuple[Held, ...]] = {}
        self._held: dict[tuple[str, int], tuple[Held, ...]] = {}

    def inherited(self, role: str) -> frozenset[str]:
        """Roles whose privileges it has without SET ROLE: itself, and those that it inherits from."""
        return self._closure(role, self._inherits, True)

    def can_become(self, role: str) -> frozenset[str]:
        """Roles that it can take on by SET ROLE, itself included."""
        return self._closure(role, self._sets, False)

    def on(self, role: str, target: Holder) -> tuple[Held, ...]:
        """What the role holds on an object, columns included, in a fixed order."""
        key = (role, id(target))  # objects live as long as the catalogue
        if key not in self._held:
            self._held[key] = self._on(role, target)
        return self._held[key]

    def may(self, role: str, privilege: str, target: Holder) -> bool:
        """True when the role holds the privilege on the whole object."""
        return any(held.privilege == privilege and not held.column for held in self.on(role, target))

    def reaches(self, role: str, table: Table) -> bool:
        """True when the role can use the schema and holds any privilege on the relation or on a column of it."""
        schema = self._catalog.schema(table.schema)
        return schema is not None and bool(self.on(role, table)) and self.may(role, "USAGE", schema)

    def _on(self, role: str, target: Holder) -> tuple[Held, ...]:
        known = self._catalog.role(role)
        if known and known.superuser:
            return tuple(Held(privilege, "superuser") for privilege in self._all(target))
        held = list(self._through(role, target.acl))
        for column in target.columns if isinstance(target, Table) else ():
            if column.acl:
                held += [each._replace(column=column.name) for each in self._through(role, column.acl)]
        return tuple(dict.fromkeys(held))

    def _all(self, target: Holder) -> tuple[str, ...]:
        names = _ALL[type(target)]
        return names if self._catalog.server.version >= 170_000 else tuple(n for n in names if n != "MAINTAIN")

    def _through(self, role: str, acl: tuple[Grant, ...]) -> tuple[Held, ...]:
        key = (role, acl)
        if key not in self._grants:
            roles = self.inherited(role) | {PUBLIC}
            order = {name: number for number, name in enumerate(LETTERS.values())}
            mine = [Held(g.privilege, g.grantee) for g in acl if g.grantee in roles]
            self._grants[key] = tuple(sorted(dict.fromkeys(mine), key=lambda h: (order.get(h.privilege, 99), h.via)))
        return self._grants[key]

    def _closure(self, role: str, edges: dict[str, list[str]], inherit: bool) -> frozenset[str]:
        key = (role, inherit)
        if key not in self._closures:
            found, pending = {role}, [role]
            while pending:
                for other in edges.get(pending.pop(), ()):
                    if other not in found:
                        found.add(other)
                        pending.append(other)
            self._closures[key] = frozenset(found)
        return self._closures[key]
