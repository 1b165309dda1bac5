"""Rows of pg_catalog to a Catalog: groups, resolves, remembers what repeats. Pure: never talks to a server."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING, Any

from pgconform.acl import decode
from pgconform.catalog import (
    PUBLIC,
    Argument,
    Catalog,
    Column,
    Constraint,
    DefaultPrivilege,
    EventTrigger,
    Extension,
    Function,
    Index,
    Membership,
    Policy,
    Publication,
    Role,
    Rule,
    Schema,
    Sequence,
    Server,
    Setting,
    Table,
    Trigger,
    Type,
)  # fmt: skip
from pgconform.names import qualified, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = tuple[Any, ...]
KINDS = {"r": "table", "p": "partitioned", "v": "view", "m": "materialized", "f": "foreign"}
ACTIONS = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}
COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
KEPT = ("table", "partitioned")  # what a publication of everything, or of a schema, sends
EVENTS = {"1": "SELECT", "2": "UPDATE", "3": "INSERT", "4": "DELETE"}  # of a rule
OPERATIONS = ("insert", "update", "delete", "truncate")


def build(rows: dict[str, list[Row]]) -> Catalog:
    """The picture that the answers amount to."""
    return _Builder(rows).catalog()


@lru_cache(maxsize=65536)
def _numbers(text: str | None) -> tuple[int, ...]:
    """The numbers of a vector (``1 2``) or an array (``{1,2}``); () for null."""
    return tuple(map(int, text.strip("{}").replace(",", " ").split())) if text else ()


_NO_OPTIONS: dict[str, str] = {}  # of most relations and indexes: one for all, since nobody changes a picture


def _options(items: list[str] | None) -> dict[str, str]:
    if not items:
        return _NO_OPTIONS
    pairs = (item.partition("=") for item in items)
    return {name: value for name, _, value in pairs}


def _above(name: str, partitions: dict[str, str]) -> Iterator[str]:
    """The tables that a partition is part of, nearest first."""
    while name := partitions.get(name, ""):
        yield name


class _Builder:
    """Groups rows by the relation that they belong to, in one pass for each kind."""

    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self.rows = rows
        self.roles: dict[int, str] = {row[0]: row[1] for row in rows["roles"]}
        self.keyed: dict[tuple[int, str, str, str], tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {}
        self.spoken_for: dict[str, tuple[str, ...]] = {}  # the roles of policies, by the text of their oids
        version, database, owner, encoding, acl = rows["server"][0]
        self.maintain = version >= 170_000
        database_owner = self._role(owner)
        self.server = Server(version, database, database_owner, encoding, decode(acl, "d", database_owner))
        self.spaces: dict[int, str] = dict(rows["namespaces"])
        self.classes = {oid: qualified(space, name) for oid, space, name in rows["operator_classes"]}
        self.members: dict[tuple[str, int], str] = {
            (catalog, oid): extension for catalog, oid, extension in rows["members"]
        }
        self.domains: dict[int, tuple[int, int]] = {oid: (base, modifier) for oid, base, modifier in rows["domains"]}
        self.names: dict[int, str] = {row[0]: qualified(row[1], row[2]) for row in rows["relations"]}
        self.parents = {child: self.names[parent] for child, parent in rows["partitions"] if parent in self.names}
        self.columns = self._grouped("columns", self._column)
        self.attributes = {oid: {c.number: c.name for c in found} for oid, found in self.columns.items()}

    def catalog(self) -> Catalog:
        rows, tables = self.rows, tuple(self._tables())
        return Catalog(
            self.server,
            tuple(self._schemas()),
            tables,
            tuple(self._sequences()),
            tuple(self._functions()),
            tuple(self._types()),
            tuple(Extension(*row) for row in rows["extensions"]),
            tuple(Role(*row[1:]) for row in rows["roles"]),
            tuple(Membership(*row) for row in rows["memberships"]),
            tuple(
                DefaultPrivilege(self._role(owner), schema, kind, decode(acl, kind, self._role(owner)))
                for owner, schema, kind, acl in rows["default_privileges"]
            ),
            tuple(self._publications(tables)),
            tuple(
                Setting(database, role, name, value)
                for database, role, items in rows["settings"]
                for name, value in _options(items).items()
            ),
            tuple(
                EventTrigger(name, event, qualified(schema, function), enabled, self._role(owner))
                for name, event, schema, function, enabled, owner in rows["event_triggers"]
            ),
            tuple(sorted(self.names[oid] for (oid,) in rows["unseen"] if oid in self.names)),
        )

    # -- what several kinds need ---------------------------------------------------------------------------------

    def _grouped(self, kind: str, make: Callable[..., Any]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for row in self.rows[kind]:
            found[row[0]].append(make(*row))
        return found

    def _role(self, oid: int) -> str:
        """A role's name; as the server writes one that is gone."""
        return self.roles.get(oid) or f"unknown (OID={oid})"

    def _extension(self, catalog: str, oid: int) -> str:
        return self.members.get((catalog, oid), "")

    def _base(self, oid: int, modifier: int) -> tuple[int, int]:
        """The type that a domain is made of, with the modifier that it then has."""
        while oid in self.domains:
            oid, own = self.domains[oid]
            modifier = own if modifier == -1 else modifier
        return oid, modifier

    def _named(self, relation: int, numbers: tuple[int, ...]) -> tuple[str, ...]:
        known = self.attributes.get(relation, {})
        return tuple([known.get(number, "") for number in numbers])

    # -- relations and what belongs to them ----------------------------------------------------------------------

    def _column(
        self, _: int, name: str, number: int, type_: str, oid: int, modifier: int, not_null: bool, default: str | None,
        generated: str, identity: str, acl: list[str] | None,
    ) -> Column:  # fmt: skip
        base = oid
        if oid in self.domains:
            base, modifier = self._base(oid, modifier)
        grants = decode(acl, "c", "") if acl else ()
        return Column(
            intern(name), number, intern(type_), oid, base, modifier, not_null, default, generated, identity, grants
        )

    def _constraint(
        self, relation: int, name: str, kind: str, key: str | None, definition: str, validated: bool, enforced: bool,
        deferrable: bool, inherited: bool, target: int, target_key: str | None, deletes: str, updates: str,
    ) -> Constraint:  # fmt: skip
        columns = self._named(relation, _numbers(key))
        if not target:
            return Constraint(name, kind, columns, definition, validated, enforced, deferrable, inherited)
        return Constraint(
            name, kind, columns, definition, validated, enforced, deferrable, inherited, self.names.get(target, ""),
            self._named(target, _numbers(target_key)), ACTIONS[deletes], ACTIONS[updates],
        )  # fmt: skip

    def _index(
        self, relation: int, schema: str, name: str, method: str, width: int, key: str, classes: str, collations: str,
        directions: str, definition: str, expressions: list[str] | None, predicate: str, options: list[str] | None,
        unique: bool, nulls: bool, primary: bool, valid: bool, ready: bool, constraint: str, inherited: bool,
        pages: int,
    ) -> Index:  # fmt: skip
        columns = self._named(relation, _numbers(key))
        leading = columns[:width]
        how = (width, classes, collations, directions)
        if how not in self.keyed:  # a few kinds for all indexes
            opclasses = tuple([self.classes[oid] for oid in _numbers(classes)[:width]])
            self.keyed[how] = opclasses, _numbers(collations)[:width], _numbers(directions)[:width]
        return Index(
            schema, name, intern(method), leading, tuple(expressions or map(quote, leading)), self.keyed[how][0],
            definition, columns[width:], *self.keyed[how][1:], predicate, _options(options), unique, nulls,
            primary, valid, ready, constraint, inherited, self._extension("pg_class", relation), pages,
        )  # fmt: skip

    def _policy(
        self, _: int, name: str, command: str, permissive: bool, roles: str, using: str | None, check: str | None
    ) -> Policy:
        if roles not in self.spoken_for:
            named = (self._role(oid) if oid else PUBLIC for oid in _numbers(roles))
            self.spoken_for[roles] = tuple(sorted(named))
        return Policy(name, COMMANDS[command], permissive, self.spoken_for[roles], using, check)

    def _trigger(
        self, _: int, name: str, space: int, function: str, enabled: str, definition: str, internal: bool
    ) -> Trigger:
        return Trigger(name, qualified(self.spaces[space], function), enabled, definition, internal)

    def _rule(self, _: int, name: str, event: str, instead: bool, enabled: str, definition: str) -> Rule:
        return Rule(name, EVENTS[event], instead, enabled, definition)

    def _tables(self) -> Iterator[Table]:
        constraints = self._grouped("constraints", self._constraint)
        indexes = self._grouped("indexes", self._index)
        policies = self._grouped("policies", self._policy)
        triggers = self._grouped("triggers", self._trigger)
        rules = self._grouped("rules", self._rule)
        reads: dict[int, list[str]] = defaultdict(list)
        for view, target in self.rows["reads"]:
            if target in self.names:
                reads[view].append(self.names[target])
        for (
            oid, schema, name, kind, owner_oid, acl, secured, forced, identity, persistence, options, tuples, pages,
            definition,
        ) in self.rows["relations"]:  # fmt: skip
            owner = self._role(owner_oid)
            yield Table(
                schema, name, KINDS[kind], owner, oid, tuple(self.columns.get(oid, ())),
                decode(acl, "r", owner, self.maintain), secured, forced, identity, persistence,
                self.parents.get(oid, ""), _options(options), self._extension("pg_class", oid), tuples, pages,
                definition, tuple(sorted(reads.get(oid, ()))), tuple(constraints.get(oid, ())),
                tuple(indexes.get(oid, ())), tuple(policies.get(oid, ())), tuple(triggers.get(oid, ())),
                tuple(rules.get(oid, ())),
            )  # fmt: skip

    # -- everything else -----------------------------------------------------------------------------------------

    def _schemas(self) -> Iterator[Schema]:
        for oid, name, owner_oid, acl in self.rows["schemas"]:
            owner = self._role(owner_oid)
            yield Schema(name, owner, decode(acl, "n", owner), self._extension("pg_namespace", oid))

    def _sequences(self) -> Iterator[Sequence]:
        for oid, schema, name, owner_oid, acl, relation, number in self.rows["sequences"]:
            owner, owned = self._role(owner_oid), ""
            if relation in self.attributes:
                owned = f"{self.names[relation]}.{qualified(*self._named(relation, (number,)))}"
            yield Sequence(schema, name, owner, decode(acl, "S", owner), owned, self._extension("pg_class", oid))

    def _functions(self) -> Iterator[Function]:
        types: dict[int, str] = dict(self.rows["argument_types"])
        for (
            schema, name, identity, kind, owner_oid, oid, language, returns, many, volatility, parallel, definer,
            strict, leakproof, names, arguments, modes, defaults, configuration, source, sql_body, acl,
        ) in self.rows["functions"]:  # fmt: skip
            owner, extension, count = self._role(owner_oid), self._extension("pg_proc", oid), len(arguments)
            listed = tuple(
                map(
                    Argument,
                    names or [""] * count,
                    [types[type_] for type_ in arguments],
                    modes or "i" * count,
                    defaults or [None] * count,
                )
            )
            body = "" if extension else sql_body or source
            yield Function(
                schema, name, identity, kind, owner, oid, language, returns, many, volatility, parallel, definer,
                strict, leakproof, listed, _options(configuration), body, sql_body is not None,
                decode(acl, "f", owner), extension,
            )  # fmt: skip

    def _types(self) -> Iterator[Type]:
        for schema, name, oid, kind, owner_oid, base, labels, acl in self.rows["types"]:
            owner = self._role(owner_oid)
            base = self._base(base, -1)[0]
            extension = self._extension("pg_type", oid)
            yield Type(schema, name, oid, kind, owner, base, extension, tuple(labels or ()), decode(acl, "T", owner))

    def _publications(self, tables: tuple[Table, ...]) -> Iterator[Publication]:
        """Each publication with all tables whose changes it sends: a partition's are its parent's as well."""
        members: dict[int, dict[str, Row]] = defaultdict(dict)
        for oid, relation, columns, condition in self.rows["published"]:
            if relation in self.names:
                members[oid][self.names[relation]] = (relation, columns, condition)
        partitions = {self.names[table.oid]: table.parent for table in tables if table.parent}
        for oid, publication, every, spaces, *operations in self.rows["publications"]:
            stated, whole = members[oid], {self.spaces[space] for space in spaces}
            sent = set(stated)
            for table in tables if every or whole else ():
                if (every or table.schema in whole) and table.kind in KEPT and table.persistence == "p":
                    sent.add(self.names[table.oid])
            sent.update(name for name in partitions if sent.intersection(_above(name, partitions)))
            yield Publication(
                publication,
                every,
                tuple(sorted(sent)),
                tuple(operation for operation, on in zip(OPERATIONS, operations, strict=True) if on),
                {table: self._named(row[0], _numbers(row[1])) for table, row in stated.items() if row[1]},
                {table: row[2] for table, row in stated.items() if row[2]},
            )
