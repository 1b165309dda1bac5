"""One snapshot of pg_catalog as an immutable Catalog. Asks no user relation, judges nothing.

The caller has opened a REPEATABLE READ, READ ONLY transaction, so that all queries see one moment.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pgconform.acl import decode
from pgconform.catalog import (
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
    Schema,
    Sequence,
    Server,
    Setting,
    Table,
    Trigger,
    Type,
)  # fmt: skip
from pgconform.catalog_queries import LOCKED, queries
from pgconform.names import qualified

if TYPE_CHECKING:
    from psycopg import Connection

Row = tuple[Any, ...]
KINDS = {"r": "table", "p": "partitioned", "v": "view", "m": "materialized", "f": "foreign"}
ACTIONS = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}
COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}


def read_text(connection: Connection[Any]) -> None:
    """Text of every type comes as str, also out of a SQL_ASCII database, where psycopg would give bytes.

    Bytes that are no UTF-8 are shown as escapes: such a name can be reported, and nothing fails over it.
    """
    from psycopg.adapt import Loader
    from psycopg.pq import Format

    if connection.info.encoding != "ascii":
        return

    class Text(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode("utf-8", "backslashreplace")

    for name in ("text", "name", "varchar", "bpchar"):
        connection.adapters.register_loader(name, Text)
    assert Text.format == Format.TEXT


def fetch(connection: Connection[Any]) -> dict[str, list[Row]]:
    """The raw answers of all queries, by kind of object."""
    from psycopg.errors import LockNotAvailable

    connection.execute(_PREPARE.encode(), [""], prepare=False)
    try:
        with connection.transaction():
            return _ask(connection)
    except LockNotAvailable:  # deparsing waits for the lock of a relation that is being changed: leave those out
        row = connection.execute(LOCKED.encode(), prepare=False).fetchone()
        connection.execute(_PREPARE.encode(), [row[0] if row else ""], prepare=False)
        return _ask(connection)


_PREPARE = "select pg_catalog.set_config('search_path', '', true), pg_catalog.set_config('pgconform.unseen', %s, true)"


def _ask(connection: Connection[Any]) -> dict[str, list[Row]]:
    asked = queries(connection.info.server_version)
    return {kind: connection.execute(text.encode(), prepare=False).fetchall() for kind, text in asked.items()}


def snapshot(connection: Connection[Any]) -> Catalog:
    """What the transaction sees of the database's structure. Raises psycopg.Error."""
    with _uncollected():
        return build(fetch(connection))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic collector: it would walk hundreds of thousands of tuples again and again, for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _options(items: list[str] | None) -> dict[str, str]:
    return dict(item.split("=", 1) for item in items) if items else {}


def build(rows: dict[str, list[Row]]) -> Catalog:
    """The picture that the answers amount to; pure."""
    return _Builder(rows).catalog()


class _Builder:
    """Groups rows by the relation that they belong to, in one pass for each kind."""

    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self.rows = rows
        version, database, owner, encoding, acl = rows["server"][0]
        self.maintain = version >= 170_000
        self.server = Server(version, database, owner, encoding, decode(acl, "d", owner))
        self.spaces: dict[int, str] = dict(rows["namespaces"])
        self.names = {row[0]: qualified(row[1], row[2]) for row in rows["relations"]}
        self.types = [
            Type(s, n, oid, kind, o, base, ext, tuple(labels or ()), decode(acl, "T", o))
            for s, n, oid, kind, o, base, ext, labels, acl in rows["types"]
        ]
        self.bases = {t.oid: t.base_oid for t in self.types if t.kind == "d"}
        self.parents = {child: self.names.get(parent, "") for child, parent in rows["inherits"]}
        self.columns = self._grouped("columns", self._column)
        self.attributes = {oid: {c.number: c.name for c in found} for oid, found in self.columns.items()}

    def _grouped(self, kind: str, make: Callable[..., Any]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for row in self.rows[kind]:
            found[row[0]].append(make(*row))
        return found

    def _base(self, oid: int) -> int:
        while oid in self.bases:
            oid = self.bases[oid]
        return oid

    def _named(self, relation: int, numbers: list[int] | None) -> tuple[str, ...]:
        known = self.attributes.get(relation, {})
        return tuple([known.get(number, "") for number in numbers]) if numbers else ()

    def _column(
        self, _: int, name: str, number: int, type_: str, oid: int, modifier: int, not_null: bool, default: str | None,
        generated: str, identity: str, acl: list[str] | None,
    ) -> Column:  # fmt: skip
        base = self._base(oid) if oid in self.bases else oid
        grants = decode(acl, "c", "") if acl else ()
        return Column(name, number, type_, oid, base, modifier, not_null, default, generated, identity, grants)

    def _constraint(
        self, relation: int, name: str, kind: str, key: list[int] | None, definition: str, validated: bool,
        enforced: bool, deferrable: bool, inherited: bool, target: int, target_key: list[int] | None, deletes: str,
        updates: str,
    ) -> Constraint:  # fmt: skip
        return Constraint(
            name, kind, self._named(relation, key), definition, validated, enforced, deferrable, inherited,
            self.names.get(target, ""), self._named(target, target_key), ACTIONS.get(deletes, ""),
            ACTIONS.get(updates, ""),
        )  # fmt: skip

    def _index(
        self, relation: int, schema: str, name: str, method: str, width: int, key: list[int], classes: list[int],
        collations: list[int], directions: list[int], definition: str, expressions: list[str] | None, predicate: str,
        options: list[str] | None, unique: bool, nulls: bool, primary: bool, valid: bool, ready: bool, constraint: str,
        inherited: bool, extension: str, pages: int,
    ) -> Index:  # fmt: skip
        columns = self._named(relation, key)
        leading = columns[:width]
        return Index(
            schema, name, method, leading, tuple(expressions) if expressions else tuple(map(qualified, leading)),
            tuple([self.classes[oid] for oid in classes[:width]]), definition, columns[width:],
            tuple(collations[:width]), tuple(directions[:width]), predicate, _options(options), unique, nulls, primary,
            valid, ready, constraint, inherited, extension, pages,
        )  # fmt: skip

    def _policy(
        self,
        _: int,
        name: str,
        command: str,
        permissive: bool,
        roles: list[str],
        using: str | None,
        check: str | None,
    ) -> Policy:
        return Policy(name, COMMANDS[command], permissive, tuple(roles), using, check)

    def _trigger(
        self, _: int, name: str, space: int, function: str, enabled: str, definition: str, internal: bool
    ) -> Trigger:
        return Trigger(name, qualified(self.spaces[space], function), enabled, definition, internal)

    def _tables(self) -> Iterator[Table]:
        self.classes = {oid: qualified(space, name) for oid, space, name in self.rows["operator_classes"]}
        constraints = self._grouped("constraints", self._constraint)
        indexes = self._grouped("indexes", self._index)
        policies = self._grouped("policies", self._policy)
        triggers = self._grouped("triggers", self._trigger)
        reads: dict[int, list[str]] = defaultdict(list)
        for view, target in self.rows["reads"]:
            if target in self.names:
                reads[view].append(self.names[target])
        for (
            oid, schema, name, kind, owner, acl, secured, forced, identity, persistence, partition, options, tuples,
            pages, extension, definition,
        ) in self.rows["relations"]:  # fmt: skip
            yield Table(
                schema, name, KINDS[kind], owner, oid, tuple(self.columns.get(oid, ())),
                decode(acl, "r", owner, self.maintain), secured, forced, identity, persistence,
                self.parents.get(oid, "") if partition else "", _options(options), extension, tuples, pages,
                definition, tuple(sorted(reads.get(oid, ()))), tuple(constraints.get(oid, ())),
                tuple(indexes.get(oid, ())), tuple(policies.get(oid, ())), tuple(triggers.get(oid, ())),
            )  # fmt: skip

    def _functions(self) -> Iterator[Function]:
        types: dict[int, str] = dict(self.rows["type_names"])
        for (
            schema, name, identity, kind, owner, oid, language, returns, many, volatility, parallel, definer, strict,
            leakproof, names, arguments, modes, defaults, configuration, body, sql_body, acl, extension,
        ) in self.rows["functions"]:  # fmt: skip
            listed = tuple(
                Argument(
                    names[i] if names else "", types.get(type_, "???"), modes[i] if modes else "i",
                    defaults[i] if defaults else None,
                )
                for i, type_ in enumerate(arguments)
            )  # fmt: skip
            yield Function(
                schema, name, identity, kind, owner, oid, language, returns or "", many, volatility, parallel, definer,
                strict, leakproof, listed, _options(configuration), body, sql_body, decode(acl, "f", owner), extension,
            )  # fmt: skip

    def _sequences(self) -> Iterator[Sequence]:
        for schema, name, owner, acl, relation, number, extension in self.rows["sequences"]:
            owned = ""
            if relation in self.names:
                owned = f"{self.names[relation]}.{qualified(self.attributes[relation][number])}"
            yield Sequence(schema, name, owner, decode(acl, "S", owner), owned, extension)

    def _publications(self, tables: tuple[Table, ...]) -> Iterator[Publication]:
        members: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows["published"]:
            members[row[0]].append(row)
        for oid, name, every, *operations, spaces in self.rows["publications"]:
            listed = {self.names[r[1]]: r for r in members[oid] if r[1] in self.names}
            whole = {self.spaces[space] for space in spaces}
            implied = [str(t) for t in tables if t.kind in ("table", "partitioned") and t.persistence == "p"
                       and (every or t.schema in whole)]  # fmt: skip
            yield Publication(
                name, every, tuple(sorted({*listed, *implied})),
                tuple(o for o, on in zip(("insert", "update", "delete", "truncate"), operations, strict=True) if on),
                {t: self._named(r[1], r[2]) for t, r in listed.items() if r[2]},
                {t: r[3] for t, r in listed.items() if r[3]},
            )  # fmt: skip

    def catalog(self) -> Catalog:
        rows, tables = self.rows, tuple(self._tables())
        return Catalog(
            self.server,
            tuple(Schema(n, o, decode(acl, "n", o), ext) for n, o, acl, ext in rows["schemas"]),
            tables,
            tuple(self._sequences()),
            tuple(self._functions()),
            tuple(self.types),
            tuple(Extension(*row) for row in rows["extensions"]),
            tuple(Role(*row) for row in rows["roles"]),
            tuple(Membership(*row) for row in rows["memberships"]),
            tuple(DefaultPrivilege(o, s, k, decode(acl, k, o)) for o, s, k, acl in rows["default_privileges"]),
            tuple(self._publications(tables)),
            tuple(
                Setting(database, role, name, value)
                for database, role, items in rows["settings"]
                for name, value in _options(items).items()
            ),
            tuple(
                EventTrigger(name, event, qualified(self.spaces[space], function), enabled, owner)
                for name, event, space, function, enabled, owner in rows["event_triggers"]
            ),
            tuple(sorted(self.names[oid] for (oid,) in rows["unseen"] if oid in self.names)),
        )
