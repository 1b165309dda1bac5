"""What bodies of search functions, and policies, say of the rows that they look at."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pgconform.catalog import Catalog, Function, Policy, Table
from pgconform.expression_parser import single
from pgconform.expression_tree import ExpressionError
from pgconform.names import qualified
from pgconform.policy_conditions import spelled

_RETURNED = re.compile(r"\breturn\s+query\b(?!\s+execute\b)", re.I)


@dataclass(frozen=True)
class Looks:
    """``where`` is an SQL condition on row ``r`` of the searched table, as a contract has it; ``compared`` are the
    columns that an argument must equal, by its name: whether of that table, and which."""

    where: str = ""
    compared: dict[str, list[tuple[bool, str]]] = field(default_factory=dict)


def looks(function: Function, table: Table, column: str, catalog: Catalog) -> Looks:
    """What the function's own SELECT from the table demands of its rows, besides the vector in ``column``. Nothing
    where the body is not understood."""
    postgast: Any = importlib.import_module("postgast")
    words: Any = importlib.import_module("postgast.pg_query_pb2")
    for tree in _trees(function, postgast):
        for select in postgast.find_nodes(tree, words.SelectStmt):
            body = _Body(select, function, table, catalog)
            if body.main:
                with suppress(ExpressionError):
                    return Looks(body.where(column), body.compared)
    return Looks()


def _trees(function: Function, postgast: Any) -> Iterator[Any]:
    """The statements of an SQL body, or those whose rows a PL/pgSQL body returns."""
    if function.language == "sql":
        yield from _parsed(function.body, postgast)
        return
    for found in _RETURNED.finditer(function.body):
        rest = function.body[found.end() :]
        ends = (m.start() for m in re.finditer(";", rest))
        yield from next(filter(None, (_parsed(rest[:end], postgast) for end in ends)), [])


def _parsed(text: str, postgast: Any) -> list[Any]:
    try:
        return [one.stmt for one in postgast.parse(text).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return []


class _Body:
    """One SELECT: its relations by what it calls them, and all that its rows must fulfil."""

    def __init__(self, select: Any, function: Function, table: Table, catalog: Catalog) -> None:
        self.postgast: Any = importlib.import_module("postgast")
        self.words: Any = importlib.import_module("postgast.pg_query_pb2")
        self.function, self.table, self.catalog = function, table, catalog
        self.relations: dict[str, Table | None] = {}
        self.conditions: list[Any] = []
        self.compared: dict[str, list[tuple[bool, str]]] = {}
        for item in select.from_clause:
            self._from(item)
        self.main = next((alias for alias, read in self.relations.items() if read is table), "")
        if self.main:
            self.conditions += _all_of(select.where_clause, self.words)
            for condition in self.conditions:
                self._compare(condition)

    def _from(self, item: Any) -> None:
        """Tables and what joins them; an outer join demands nothing of rows, and something else is not looked into."""
        kind = item.WhichOneof("node")
        if kind == "range_var":
            alias, schema = item.range_var.alias.aliasname, item.range_var.schemaname
            fitting = [t for t in self.catalog.tables if t.name == item.range_var.relname and schema in ("", t.schema)]
            known = [t for t in fitting if t is self.table] or fitting
            self.relations[alias or item.range_var.relname] = known[0] if len(known) == 1 else None
        elif kind == "join_expr":
            self._from(item.join_expr.larg)
            self._from(item.join_expr.rarg)
            if item.join_expr.jointype == self.words.JOIN_INNER:
                self.conditions += _all_of(item.join_expr.quals, self.words)

    def _named(self, reference: Any) -> tuple[str, str] | None:
        """The relation, '' for an argument of the function, and the column; None where that is not clear."""
        parts = [part.string.sval for part in reference.fields if part.WhichOneof("node") == "string"]
        if len(parts) == 2 and parts[0] in self.relations:
            return parts[0], parts[1]
        name = parts[-1] if parts and len(parts) == len(reference.fields) else ""
        holding = [alias for alias, read in self.relations.items() if read is None or read.column(name)]
        argument = any(a.name == name for a in self.function.inputs)
        if len(parts) == 2:
            return ("", name) if argument and parts[0] == self.function.name else None
        if argument:  # in SQL, a column of that name is meant, though hardly what its author meant
            return None if holding and self.function.language == "sql" else ("", name)
        return (holding[0], name) if len(parts) == 1 and len(holding) == 1 else None

    def _references(self, node: Any) -> list[tuple[str, str] | None]:
        found = [self._named(one) for one in self.postgast.find_nodes(node, self.words.ColumnRef)]
        return found + [("", "")] * sum(1 for _ in self.postgast.find_nodes(node, self.words.ParamRef))

    def _compare(self, condition: Any) -> None:
        """Notes each argument that a column has to equal, alone or unless the argument is null."""
        for node in self.postgast.find_nodes(condition, self.words.A_Expr):
            sides = [side.column_ref for side in (node.lexpr, node.rexpr) if side.WhichOneof("node") == "column_ref"]
            if [part.string.sval for part in node.name] == ["="] and len(sides) == 2:
                one, other = (self._named(side) for side in sides)
                for argument, place in ((one, other), (other, one)):
                    if argument and place and not argument[0] and place[0]:
                        self.compared.setdefault(argument[1], []).append((place[0] == self.main, place[1]))

    def where(self, column: str) -> str:
        """Conditions that no argument takes part in: on the table's columns, and on rows that it is joined to."""
        own: list[str] = []
        joined: dict[str, list[Any]] = {}
        links: dict[str, list[Any]] = {}
        for condition in self.conditions:
            found = self._references(condition)
            opaque = (self.words.FuncCall, self.words.SubLink)
            if None in found or any(True for kind in opaque for _ in self.postgast.find_nodes(condition, kind)):
                continue
            aliases = {place[0] for place in found if place}
            others = aliases - {self.main}
            if aliases == {self.main} and (self.main, column) not in found:
                own.append(self._text(condition, {self.main: ""}))
            elif len(others) == 1 and "" not in others:
                (links if self.main in aliases else joined).setdefault(others.pop(), []).append(condition)
        for alias, conditions in joined.items():
            if (read := self.relations[alias]) and alias in links:
                demanded = " and ".join(self._text(c, {self.main: "r", alias: "s"}) for c in links[alias] + conditions)
                own.append(f"exists (select from {qualified(read.schema, read.name)} as s where {demanded})")
        return " and ".join(own)

    def _text(self, condition: Any, called: dict[str, str]) -> str:
        """The condition as SQL, its relations called otherwise."""
        copied = type(condition)()
        copied.CopyFrom(condition)
        for reference in self.postgast.find_nodes(copied, self.words.ColumnRef):
            alias, name = self._named(reference) or ("", "")
            del reference.fields[:]
            for part in filter(None, (called[alias], name)):
                reference.fields.add().string.sval = part
        return _written(copied)


def visible(table: Table, roles: Iterable[str]) -> str:
    """The conditions on a row's own columns under which alone those roles' policies show it; '' for none."""
    named = {"public", *roles}
    policies = [p for p in table.policies if p.command in ("ALL", "SELECT") and not named.isdisjoint(p.roles)]
    told = [(policy, dict.fromkeys(_plain(policy.using or ""))) for policy in policies if table.row_security]
    common = [list(found) for policy, found in told if policy.permissive]
    kept = [text for text in (common[0] if common else []) if all(text in found for found in common)]
    return " and ".join(dict.fromkeys([*kept, *(t for policy, found in told if not policy.permissive for t in found)]))


def shows_without(policy: Policy, tenant: str) -> bool:
    """True where the policy shows rows whose tenant is null, whatever else it demands."""
    if not policy.permissive or policy.command not in ("ALL", "SELECT"):
        return False
    words: Any = importlib.import_module("postgast.pg_query_pb2")
    try:
        whole = single(policy.using or "")
    except ExpressionError:
        return False
    branches = (
        branch
        for part in _all_of(whole, words)
        if part.WhichOneof("node") == "bool_expr" and part.bool_expr.boolop == words.OR_EXPR
        for branch in part.bool_expr.args
    )
    return any(_is_null(branch, tenant, words) for branch in branches)


def _is_null(node: Any, name: str, words: Any) -> bool:
    test = node.null_test
    if node.WhichOneof("node") != "null_test" or test.nulltesttype != words.IS_NULL:
        return False
    return [part.string.sval for part in test.arg.column_ref.fields] == [name]


def _plain(using: str) -> Iterator[str]:
    """Those parts of a policy's expression, all of which must hold, that look at nothing but the row."""
    postgast: Any = importlib.import_module("postgast")
    words: Any = importlib.import_module("postgast.pg_query_pb2")
    try:
        whole = single(using)
    except ExpressionError:
        return
    opaque = (words.FuncCall, words.SubLink, words.SQLValueFunction)
    for part in _all_of(whole, words):
        columns = [len(reference.fields) for reference in postgast.find_nodes(part, words.ColumnRef)]
        if columns and max(columns) == 1 and not any(True for kind in opaque for _ in postgast.find_nodes(part, kind)):
            with suppress(ExpressionError):
                yield _written(part)


def _all_of(node: Any, words: Any) -> list[Any]:
    """The parts that must all hold."""
    kind = node.WhichOneof("node")
    if kind == "bool_expr" and node.bool_expr.boolop == words.AND_EXPR:
        return [part for argument in node.bool_expr.args for part in _all_of(argument, words)]
    return [node] if kind else []


def _written(condition: Any) -> str:
    """One of several parts, as they are joined."""
    text = spelled(condition)
    return f"({text})" if condition.WhichOneof("node") == "bool_expr" else text


def filters(found: Looks, wanted: Iterable[str]) -> dict[str, str]:
    """For each of those arguments the column of the table that it must equal, where there is one."""
    told = {name: [c for main, c in found.compared.get(name, []) if main] for name in wanted}
    return {name: columns[0] for name, columns in told.items() if columns}
