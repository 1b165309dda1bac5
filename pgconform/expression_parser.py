"""Builds the tree of a policy expression with PostgreSQL's own grammar; it decides nothing about the expression.

Whose column is it? What pg_get_expr prints qualifies every column inside a subquery: a qualifier that no FROM
clause in scope binds means the row that the policy judges. An unqualified column belongs to the nearest enclosing
query that has a FROM clause, otherwise to the row. A whole row counts as a column named ``*``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pgconform.expression_tree import (
    AGGREGATES,
    Arm,
    Call,
    Case,
    Cast,
    Coalesce,
    Column,
    Const,
    ExpressionError,
    Is,
    Junction,
    Node,
    Not,
    Op,
    Path,
    Sub,
    Trusted,
    children,
    common,
    compare,
    walk,
)

_VOLATILE = frozenset(
    ("random", "gen_random_uuid", "uuid_generate_v4", "uuidv4", "uuidv7", "clock_timestamp", "timeofday", "nextval",
     "setval")
)  # fmt: skip
_INTEGERS = frozenset(("int2", "int4", "int8"))
_TEXTS = frozenset(("text", "varchar"))


def _module(name: str) -> Any:
    """A module without usable types: postgast's generated stub is no valid Python, so mypy cannot read it."""
    return import_module(name)


@dataclass(slots=True)
class Parsed:
    """The tree of one expression, and what was met while it was built."""

    root: Node = field(default_factory=lambda: Const(None))
    functions: set[Path] = field(default_factory=set)
    settings: set[str] = field(default_factory=set)
    relations: set[Path] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    per_row: list[Path] = field(default_factory=list)


def single(expression: str) -> Any:
    """PostgreSQL's own tree of a text that is exactly one expression. Raises ExpressionError for any other."""
    postgast = _module("postgast")
    if "\0" in expression:
        raise ExpressionError("expression cannot be parsed: it holds a NUL character")
    try:
        statements = postgast.parse(f"select {expression}").stmts
    except postgast.PgQueryError as error:
        where = max(error.cursorpos - len("select "), 1)
        raise ExpressionError(f"expression cannot be parsed: syntax error at byte {where}") from None
    except _module("google.protobuf.message").DecodeError:
        raise ExpressionError("expression cannot be parsed: it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ExpressionError("expression cannot be parsed: it is not valid Unicode") from None
    select: Any = statements[0].stmt.select_stmt if len(statements) == 1 else None
    if select is None or {f.name for f, _ in select.ListFields()} != {"target_list", "limit_option", "op"}:
        raise ExpressionError("expression cannot be parsed: expected one expression, found a statement")
    target = select.target_list[0].res_target
    if len(select.target_list) != 1 or target.name or _is_star(target.val):
        raise ExpressionError("expression cannot be parsed: expected one expression")
    return target.val


def parse(expression: str, table: str = "", trusted: Trusted = ()) -> Parsed:
    """The tree of what pg_get_expr printed for the table.

    The table is its bare name; without it, a qualifier that no FROM clause binds is taken to be the row. ``trusted``
    are columns of relations whose own row security shows the session's rows only.

    Raises ExpressionError for anything that is not exactly one expression.
    """
    builder = _Builder(table, trusted)
    builder.parsed.root = builder.node(single(expression))
    return builder.parsed


def _aggregates(node: Node) -> bool:
    """Whether an aggregate of this very query is called; those of subqueries are their own."""
    if isinstance(node, Sub):
        return False
    return (isinstance(node, Call) and node.name[0] in AGGREGATES) or any(map(_aggregates, children(node)))


def _is_star(wrapped: Any) -> bool:
    """Whether it is ``*``, which is a list of columns and no expression (or nothing at all)."""
    kind = wrapped.WhichOneof("node")
    return kind is None or (kind == "column_ref" and wrapped.column_ref.fields[-1].WhichOneof("node") == "a_star")


class _Builder:
    def __init__(self, table: str, trusted: Trusted) -> None:
        self.pb = _module("postgast.pg_query_pb2")
        self.table = table
        self.trusted = trusted
        self.parsed = Parsed()
        self.scopes: list[dict[str, Node | None]] = []  # what the FROM clause of each enclosing query binds
        self.ctes: dict[str, Node] = {}
        self.reach = 0  # the outermost scope whose columns were read; 0 is the row
        self.nonces = 0

    def node(self, wrapped: Any) -> Node:
        kind = wrapped.WhichOneof("node")
        if kind is None:
            return Const(None)
        inner = getattr(wrapped, kind)
        build = getattr(self, "_" + kind, None)
        return build(inner) if build else self._other(kind, inner)

    def nodes(self, wrapped: Any) -> tuple[Node, ...]:
        return tuple(map(self.node, wrapped))

    def _other(self, kind: str, message: Any) -> Node:
        """Syntax that matters to no question (XML, JSON, windows): keep only what it contains."""
        found: list[Node] = []
        for descriptor, value in message.ListFields():
            items = (value,) if hasattr(value, "ListFields") else value
            for item in items if descriptor.message_type else ():
                is_node = descriptor.message_type.name == "Node"
                found.append(self.node(item) if is_node else self._other(descriptor.name, item))
        return Call(("", kind), tuple(found))

    # values

    def _a_const(self, const: Any) -> Node:
        kind = const.WhichOneof("val")
        match kind:
            case None:
                return Const(None)
            case "ival":
                return Const(const.ival.ival)
            case "boolval":
                return Const(const.boolval.boolval)
            case "sval":
                return Const(const.sval.sval)
        return Cast(Const(str(getattr(getattr(const, kind), kind))), kind)

    def _column_ref(self, ref: Any) -> Node:
        names = [f.string.sval if f.WhichOneof("node") == "string" else "*" for f in ref.fields]
        depth, of, source = self._owner(names)
        self.reach = min(self.reach, depth)
        if not of:
            self.parsed.columns.add(names[-1])
        return Column(names[-1], of, source)

    def _owner(self, names: list[str]) -> tuple[int, str, Node | None]:
        qualifier = names[-2] if len(names) > 1 else ""
        for depth in range(len(self.scopes), 0, -1):
            bound = self.scopes[depth - 1]
            if qualifier in bound or (bound and not qualifier):
                only = next(iter(bound)) if len(bound) == 1 else "?"
                return depth, qualifier or only, bound.get(qualifier or only)
        return 0, "" if not self.table or qualifier in ("", self.table) else qualifier, None

    def _type_cast(self, cast: Any) -> Node:
        arg, kind = self.node(cast.arg), cast.type_name
        name = "[]" if kind.array_bounds else kind.names[-1].string.sval if kind.names else ""
        listed = isinstance(arg, Call) and arg.name == ("", "array") and name == "[]"
        if arg == Const(None) or listed or (name in _TEXTS and not kind.typmods):
            return arg
        if isinstance(arg, Const) and isinstance(arg.value, str):
            text = arg.value.strip().lower()
            if name == "bool" and text in ("t", "true", "on", "yes", "1", "f", "false", "off", "no", "0"):
                return Const(text in ("t", "true", "on", "yes", "1"))
            if name in _INTEGERS and text.removeprefix("-").isdecimal():
                return Const(int(text))
        return Cast(arg, name)

    def _collate_clause(self, clause: Any) -> Node:
        return self.node(clause.arg)

    def _a_indirection(self, indirection: Any) -> Node:
        base = self.node(indirection.arg)
        for step in indirection.indirection:
            if step.WhichOneof("node") == "a_indices":
                base = Call(("", "[]"), (base, self.node(step.a_indices.lidx), self.node(step.a_indices.uidx)))
            else:
                base = Call(("", "."), (base, Const(step.string.sval)))
        return base

    def _row_expr(self, row: Any) -> Node:
        return Call(("", "row"), self.nodes(row.args))

    def _a_array_expr(self, array: Any) -> Node:
        return Call(("", "array"), self.nodes(array.elements))

    def _list(self, items: Any) -> Node:
        return Call(("", "list"), self.nodes(items.items))

    def _min_max_expr(self, expr: Any) -> Node:
        return Call(("", "greatest"), self.nodes(expr.args))

    def _coalesce_expr(self, expr: Any) -> Node:
        args = tuple(arg for arg in self.nodes(expr.args) if arg != Const(None))
        return args[0] if len(args) == 1 else Coalesce(args) if args else Const(None)

    def _sqlvalue_function(self, function: Any) -> Node:
        name = self.pb.SQLValueFunctionOp.Name(function.op).removeprefix("SVFOP_").removesuffix("_N").lower()
        return self._called(("current_user" if name in ("user", "current_role") else name,), ())

    def _func_call(self, call: Any) -> Node:
        path = tuple(part.string.sval for part in call.funcname)
        name = path[1:] if len(path) > 1 and path[0] == "pg_catalog" else path
        args = self.nodes(call.args)
        extra = self.nodes(call.agg_order) + ((self.node(call.agg_filter),) if call.HasField("agg_filter") else ())
        extra += (self._other("over", call.over),) if call.HasField("over") else ()
        return self._called(name, args + extra)

    def _called(self, name: Path, args: tuple[Node, ...]) -> Node:
        self.parsed.functions.add(name)
        if name == ("current_setting",) and args and isinstance(args[0], Const):
            self.parsed.settings.add(str(args[0].value))
        if name[0] == "auth" or name == ("current_setting",):
            asks_row = any(isinstance(node, Column) for arg in args for node in walk(arg))
            self.parsed.per_row += [] if asks_row else [name]
        self.nonces += 1
        return Call(name, args, self.nonces if name[-1] in _VOLATILE else 0)

    # conditions

    def _bool_expr(self, expr: Any) -> Node:
        args = self.nodes(expr.args)
        return Not(args[0]) if expr.boolop == self.pb.NOT_EXPR else Junction(expr.boolop == self.pb.AND_EXPR, args)

    def _null_test(self, test: Any) -> Node:
        found = Is(self.node(test.arg), None)
        return found if test.nulltesttype == self.pb.IS_NULL else Not(found)

    def _boolean_test(self, test: Any) -> Node:
        _, *words = self.pb.BoolTestType.Name(test.booltesttype).split("_")
        found = Is(self.node(test.arg), {"TRUE": True, "FALSE": False, "UNKNOWN": None}[words[-1]])
        return Not(found) if len(words) > 1 else found

    def _case_expr(self, case: Any) -> Node:
        subject = self.node(case.arg) if case.HasField("arg") else None
        branches = []
        for when in case.args:
            condition = self.node(when.case_when.expr)
            if subject is not None:
                condition = compare("=", subject, condition)
            branches.append((condition, self.node(when.case_when.result)))
        return Case(tuple(branches), self.node(case.defresult))

    def _a_expr(self, expr: Any) -> Node:
        kind = self.pb.A_Expr_Kind.Name(expr.kind).removeprefix("AEXPR_")
        name = expr.name[-1].string.sval
        left, right = self.node(expr.lexpr), self.node(expr.rexpr)
        if not expr.HasField("lexpr"):
            return Op(name, (right,))
        match kind:
            case "OP_ANY" | "OP_ALL" | "IN":
                every = kind == "OP_ALL" or (kind == "IN" and name == "<>")
                if isinstance(right, Call) and right.name in (("", "array"), ("", "list")):
                    return Junction(every, tuple(compare(name, left, item) for item in right.args))
                return compare(name, left, right, "all" if every else "any")
            case "DISTINCT":
                return Not(compare("is", left, right))
            case "NOT_DISTINCT":
                return compare("is", left, right)
            case "NULLIF":
                return Call(("", "nullif"), (left, right))
            case "BETWEEN" | "NOT_BETWEEN" if isinstance(right, Call):
                low, high = right.args
                inside = Junction(True, (compare(">=", left, low), compare("<=", left, high)))
                return inside if kind == "BETWEEN" else Not(inside)
        return compare(name, left, right)

    # subqueries

    def _sub_link(self, link: Any) -> Node:
        kind = self.pb.SubLinkType.Name(link.sub_link_type).removesuffix("_SUBLINK")
        test = self.node(link.testexpr) if link.HasField("testexpr") else None
        above, calls = self.reach, len(self.parsed.per_row)
        self.reach = depth = len(self.scopes) + 1
        arms = self._select(link.subselect.select_stmt)
        correlated = self.reach < depth
        if not correlated and (kind in ("EXPR", "ARRAY") or all(map(_bare, arms))):
            del self.parsed.per_row[calls:]  # the server runs it once, before the rows
        self.reach = min(above, self.reach)
        plain = arms[0].targets if len(arms) == 1 and _bare(arms[0]) else ()
        if kind == "EXPR":
            return plain[0] if len(plain) == 1 else Sub("scalar", arms)
        if test is None:
            return Sub(kind.lower(), arms)
        name = link.oper_name[-1].string.sval if link.oper_name else "="
        if len(plain) == 1 or (plain and isinstance(test, Call) and test.name == ("", "row")):
            return compare(name, test, plain[0] if len(plain) == 1 else Call(("", "row"), plain))
        return compare(name, test, Sub("set", arms), "all" if kind == "ALL" else "any")

    def _select(self, select: Any) -> tuple[Arm, ...]:
        outer = self.ctes
        for cte in select.with_clause.ctes:
            name = cte.common_table_expr.ctename
            self.ctes = self.ctes | {name: Call(("", "recursion"))}
            query = Sub("set", self._select(cte.common_table_expr.ctequery.select_stmt))
            self.ctes = self.ctes | {name: query}
        if select.op != self.pb.SETOP_NONE:
            arms = self._select(select.larg)
            right = self._select(select.rarg)
            if select.op == self.pb.SETOP_INTERSECT:
                arms = common(arms, right)
            elif select.op != self.pb.SETOP_EXCEPT:
                arms += right
        elif select.values_lists:
            arms = tuple(
                Arm(frozenset(), self.nodes(row.list.items), (), (), True, False) for row in select.values_lists
            )
        else:
            arms = (self._arm(select),)
        self.ctes = outer
        return arms

    def _arm(self, select: Any) -> Arm:
        self.scopes.append({})
        conditions: list[Node] = []
        sources: list[Node] = []
        for item in select.from_clause:
            self._from(item, conditions, sources)
        targets = tuple(self.node(target.res_target.val) for target in select.target_list)
        clauses = [name for name in ("where_clause", "having_clause") if select.HasField(name)]
        conditions.extend(self.node(getattr(select, name)) for name in clauses)
        for clause in ("group_clause", "sort_clause", "distinct_clause", "window_clause"):
            for wrapped in getattr(select, clause):
                self.node(wrapped)
        names = frozenset(self.scopes.pop())
        bounded = any(map(select.HasField, ("limit_count", "limit_offset", "having_clause")))
        grouped = any(each.WhichOneof("node") != "grouping_set" for each in select.group_clause)
        aggregates = any(map(_aggregates, targets))
        counts = not grouped and (aggregates or bool(select.group_clause) or select.HasField("having_clause"))
        single = not bounded and (not select.group_clause if counts else not select.from_clause)
        return Arm(names, targets, tuple(conditions), tuple(sources), single, counts)

    def _from(self, item: Any, conditions: list[Node], sources: list[Node]) -> None:
        """Bind the names of one FROM item, and add the conditions and sources that every result row must pass."""
        kind = item.WhichOneof("node")
        inner = getattr(item, kind)
        if kind == "range_table_sample":
            self._from(inner.relation, conditions, sources)
            return
        alias = inner.alias.aliasname
        source: Node | None = None
        if kind == "join_expr":
            for side, optional in ((inner.larg, ("FULL", "RIGHT")), (inner.rarg, ("FULL", "LEFT"))):
                dropped = self.pb.JoinType.Name(inner.jointype).removeprefix("JOIN_") in optional
                self._from(side, [] if dropped else conditions, [] if dropped else sources)
            if inner.HasField("quals"):
                quals = self.node(inner.quals)
                if inner.jointype == self.pb.JOIN_INNER:
                    conditions.append(quals)
        elif kind == "range_var":
            alias = alias or inner.relname
            if inner.relname in self.ctes and not inner.schemaname:
                source = self.ctes[inner.relname]
            else:
                path = ((inner.schemaname,) if inner.schemaname else ()) + (inner.relname,)
                self.parsed.relations.add(path)
                keys = tuple(Const(column) for relation, column in self.trusted if relation == path)
                source = Call(("", "trusted"), keys) if keys else None
        elif kind == "range_subselect":
            source = Sub("set", self._select(inner.subquery.select_stmt))
        elif kind == "range_function":
            calls = tuple(self.node(function.list.items[0]) for function in inner.functions)
            source = calls[0] if len(calls) == 1 else Call(("", "list"), calls)
            alias = alias or (source.name[-1] if isinstance(source, Call) else "")
        else:
            source = self._other(kind, inner)
        if source is not None:
            sources.append(source)
        self.scopes[-1][alias or "?"] = source


def _bare(arm: Arm) -> bool:
    """SELECT of values without FROM and WHERE: the values themselves."""
    return arm.single and not (arm.counts or arm.conditions or arm.names)
