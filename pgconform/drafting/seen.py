"""What a draft is made from: the relations that matter, and what their policies compare with the session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from functools import cached_property

from pgconform.bodies import uncommented
from pgconform.callees import functions_behind
from pgconform.catalog import Catalog, Function, Policy, Table
from pgconform.expressions import ExpressionError, Shape, compares, constrains, shape
from pgconform.names import qualified, quote
from pgconform.privileges import Privileges

# A function without arguments that is called so returns who calls.
_WHO = re.compile(r"(^|_)(uid|user|user_?id|me|whoami)$", re.I)
# A setting or claim that is called so holds a user; any other holds a tenant.
_USER = re.compile(r"(^|[._])(sub|uid|user|user_?id|member_?id|profile_?id)$", re.I)
_SETTING = re.compile(r"\bcurrent_setting\s*\(\s*'([^']+)'", re.I)
_USERS = re.compile(r"(^|_)(users?|profiles?|people|persons?|members?|auth_users?)$", re.I)
# Settings that hold a whole token, or, from older servers of an API, one claim of it.
_TOKEN = re.compile(r"claims?$|^request\.")


class Seen:
    """One snapshot of a database, looked at with a draft in mind."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.privileges = Privileges(catalog)
        self._bodies: dict[int, frozenset[str]] = {}  # what functions read, by their oids

    @cached_property
    def stored(self) -> tuple[Table, ...]:
        """Relations that hold rows of their own: no extension's, no partition."""
        return tuple(t for t in self.catalog.tables if t.stores_rows and not t.extension and not self.is_part(t))

    @cached_property
    def named(self) -> dict[str, list[Table]]:
        """Relations that hold rows, by their names without a schema."""
        found: dict[str, list[Table]] = {}
        for table in self.stored:
            found.setdefault(table.name, []).append(table)
        return found

    def is_part(self, table: Table) -> bool:
        """True for a partition: what its parent promises holds for it."""
        parent = self.catalog.table(table.parent) if table.parent else None
        return parent is not None and parent.kind == "partitioned"

    @cached_property
    def who(self) -> frozenset[tuple[str, ...]]:
        """Functions that policies call and that return the caller's user, by their paths."""
        called = {path for policy in self._policies() for path in policy[2].functions}
        named = {path for path in called if _WHO.search(path[-1]) and self._plain(path)}
        return frozenset(named | {("auth", "uid")})

    def _plain(self, path: tuple[str, ...]) -> bool:
        return any(not f.inputs for f in self.catalog.functions_named(qualified(*path)))

    def readers(self, table: Table) -> list[str]:
        """The expressions that let rows of the table be read."""
        rules = [p for p in table.policies if p.permissive and p.command in ("ALL", "SELECT") and p.using]
        return [p.using for p in rules if p.using]

    def _policies(self) -> list[tuple[Table, Policy, Shape]]:
        found = []
        for table in self.catalog.tables:
            for policy in table.policies:
                for expression in filter(None, (policy.using, policy.check)):
                    try:
                        found.append((table, policy, shape(expression, table.name)))
                    except ExpressionError:
                        continue  # what cannot be read says nothing here
        return found

    @cached_property
    def shapes(self) -> dict[str, list[Shape]]:
        """What the policies of each table read and call."""
        found: dict[str, list[Shape]] = {}
        for table, _, seen in self._policies():
            found.setdefault(str(table), []).append(seen)
        return found

    @cached_property
    def read_by_policies(self) -> Counter[str]:
        """How many other tables' policies read a relation, themselves or through the functions that they call."""
        found: Counter[str] = Counter()
        for name, shapes in self.shapes.items():
            reads = {qualified(*path) for seen in shapes for path in seen.relations}
            for function in {f.signature: f for seen in shapes for f in functions_behind(seen, self.catalog)}.values():
                reads |= self._read_by(function)
            found.update(reads - {name})
        return found

    def asking(self, table: Table) -> Counter[tuple[str, str]]:
        """What policies ask of a table, themselves or through functions: who asks, and its text, by how often."""
        found: Counter[tuple[str, str]] = Counter()
        for other, policy, _ in self._policies():
            for text in filter(None, (policy.using, policy.check)):
                if other != table and mentions(text, table):
                    found[f"the policy {policy.name} of {other}", text] += 1
        for shapes in self.shapes.values():
            for function in {f.signature: f for seen in shapes for f in functions_behind(seen, self.catalog)}.values():
                if str(table) in self._read_by(function):
                    found[str(function), uncommented(function.body)] += 1
        return found

    def _read_by(self, function: Function) -> frozenset[str]:
        """The relations that a function's body reads."""
        if function.oid not in self._bodies:
            self._bodies[function.oid] = frozenset(str(t) for t in self.stored if mentions(function.body, t))
        return self._bodies[function.oid]

    @cached_property
    def tied(self) -> dict[str, frozenset[str]]:
        """Per table, the columns that each of its reading policies ties to the session."""
        found = {}
        for table in self.catalog.tables:
            columns = [c.name for c in table.columns if self._ties(table, c.name)] if self.readers(table) else []
            found[str(table)] = frozenset(columns)
        return found

    def _ties(self, table: Table, column: str) -> bool:
        try:
            return all(constrains(text, [column], table.name) for text in self.readers(table)) and any(
                column in shape(text, table.name).columns for text in self.readers(table)
            )
        except ExpressionError:
            return False

    def by_user(self, table: Table, column: str) -> bool:
        """True when the table's policies compare the column with the user who calls."""
        for text in self.readers(table):
            try:
                if compares(text, column, self.who, table.name, [("sub",)]):
                    return True
                seen = shape(text, table.name)
            except ExpressionError:
                continue
            if column in self.tied[str(table)] and seen.settings and not seen.relations:
                return all(_USER.search(name) for name in seen.settings)
        return False

    def said(self, tables: Collection[str], user: bool) -> tuple[str, tuple[str, ...]] | None:
        """How sessions say their user, or else their tenant, to the policies of those tables: ``("claims", path)``,
        ``("settings", (name,))``, None where nothing tells."""
        shapes = [seen for table in tables for seen in self.shapes.get(table, ())]
        claims = Counter(path for seen in shapes for path in seen.claims if path != ("role",))
        settings = Counter(name for seen in shapes for name in self._settings(seen))
        for path, _ in claims.most_common():
            if bool(_USER.search(path[-1])) == user:
                return "claims", path
        for name, _ in settings.most_common():
            if bool(_USER.search(name)) == user:
                return "settings", (name,)
        return None

    def _settings(self, seen: Shape) -> set[str]:
        """Settings of the application that an expression reads, itself or through functions; no token's."""
        told = set(seen.settings)
        for function in functions_behind(seen, self.catalog):
            told |= set(_SETTING.findall(function.body))
        return {name for name in told if "." in name and not _TOKEN.search(name)}

    def of_users(self, table: str) -> bool:
        """True where a table knows users rather than tenants, by its name or its own policies."""
        found = self.catalog.table(table)
        own = found is not None and any(self.by_user(found, column) for column in found.primary_key)
        return own or bool(found and (found.schema == "auth" or _USERS.search(found.name)))


def mentions(body: str, table: Table) -> bool:
    """True where a body reads the relation: with its schema before it, or after FROM or JOIN."""
    return bool(re.search(_mention(table), body, re.I))


def aliases(body: str, table: Table) -> set[str]:
    """What a body may call the relation where it reads it, as names are spelled: itself, and what follows it."""
    word = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
    found = re.findall(rf"{_mention(table)}\s+(?:as\s+)?({word})", body, re.I)
    return {told if told.startswith('"') else told.lower() for told in found} | {quote(table.name), f'"{table.name}"'}


def _mention(table: Table) -> str:
    schema, name = (spelled(part) for part in (table.schema, table.name))
    return rf"(?<![\w$\"])(?:{schema}\s*\.\s*|(?:from|join)\s+(?:only\s+)?){name}(?![\w$\"])"


def spelled(name: str) -> str:
    """A pattern for the name, in quotes or without."""
    return f'(?:{re.escape(quote(name))}|"{re.escape(name)}")'
