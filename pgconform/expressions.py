"""What can be told about a policy's boolean expression from its text alone: parsed, never matched as text.

Nothing here talks to a server, so what a function does is unknown: built-in functions on the list of pure ones
only pass their arguments on; every other function is taken to depend on the session.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from pgconform.expression_parser import Parsed, parse
from pgconform.expression_tree import (
    AGGREGATES,
    FAITHFUL,
    JSON,
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
    builtin,
    children,
    claims,
    opaque,
    walk,
)
from pgconform.expression_truth import escapes, fixed, never

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "ExpressionError",
    "Shape",
    "compares",
    "constant",
    "constrains",
    "null_escapes",
    "per_row_calls",
    "shape",
]

_EQUALITIES = frozenset(("=", "is"))
_LINKS = _EQUALITIES | {"@>", "<@", "&&", "?", "?|"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What can be told about one boolean expression; a whole row counts as the column ``*``."""

    always_true: bool
    always_false: bool
    columns: frozenset[str]
    functions: frozenset[Path]
    settings: frozenset[str]
    relations: frozenset[Path]
    claims: frozenset[Path]


@cache
def _parsed(expression: str, table: str, trusted: Trusted = ()) -> Parsed:
    return parse(expression, table, trusted)


@cache
def shape(expression: str, table: str = "") -> Shape:
    """What the expression reads and calls, and whether its outcome is fixed.

    Always true: never false, and true for every row without nulls (``x = x`` is), whatever the session. Always
    false: it lets no row through; null counts as false. Both are proven: False may also mean "not known".
    ExpressionError for text that is not one expression.
    """
    parsed = _parsed(expression, table)
    always_true, always_false = fixed(parsed.root)
    return Shape(
        always_true,
        always_false,
        frozenset(parsed.columns),
        frozenset(parsed.functions),
        frozenset(parsed.settings),
        frozenset(parsed.relations),
        frozenset(claims(parsed.root)),
    )


def constant(expression: str | None) -> object:
    """The value of a constant, casts left out: a number, truth value or text, ``("null",)`` for NULL; None for no
    expression; the text itself where it is no constant. Two defaults are the same when these are equal."""
    if expression is None:
        return None
    node = parse(expression).root
    while isinstance(node, Cast):
        node = node.arg
    if not isinstance(node, Const):
        return expression
    if node.value is None:
        return ("null",)
    try:
        return node.value if isinstance(node.value, bool) else Decimal(node.value)
    except ArithmeticError:
        return node.value


@cache
def _constrains(expression: str, columns: frozenset[str], table: str, trusted: Trusted) -> bool:
    root = _parsed(expression, table, trusted).root
    return _forced(root, _Goal(columns, session=True)) or never(root)


def constrains(expression: str, columns: Collection[str], table: str = "", trusted: Trusted = ()) -> bool:
    """True when every way for the expression to be true ties one of the row's columns to the session.

    These tie: a comparison by ``=``, IN, ``= ANY``, IS NOT DISTINCT FROM, containment or overlap with a value
    that depends on the session; a function not known to be pure that takes the column (``is_member(org_id)``); an
    EXISTS or scalar subquery whose every row ties the column to a looked-up table, and that table to the session.

    A subquery depends on the session when each of its rows must pass a comparison with a session value, comes out
    of such a function, or *is* a session value. A lookup that leans on another table's row security alone
    (``tenant_id in (select id from tenants)``) does, where that column of that table is among the ``trusted``. Nor
    does comparing the column with itself, with a constant, by LIKE, ``<`` or ``<>`` tie it, nor what many values
    share (``left(tenant_id, 1) = ...``): ``tenant_id in ('shared', auth.tenant())`` has a way around.

    An expression that is never true constrains. Inside subqueries pg_get_expr qualifies the row's columns by the
    table's name, which is how correlation is recognised. ExpressionError for text that is not one expression.
    """
    return _constrains(expression, frozenset(columns), table, trusted)


def compares(
    expression: str, column: str, functions: Collection[Path], table: str = "", paths: Collection[Path] = ()
) -> bool:
    """True when the row's column is compared for equality, anywhere, directly with a named function's result, or
    with what the session's JWT holds at one of the paths.

    Casts, scalar subqueries, NULLIF, COALESCE, lower() and the order of the sides do not hide it.
    """
    named = frozenset(functions)
    for node in walk(_parsed(expression, table).root):
        if isinstance(node, Op) and node.name in _EQUALITIES and node.over != "all":
            for one, other in _ways(node):
                named_there = any(_is_named(value, named, frozenset(paths)) for value in _values(other))
                if named_there and Column(column) in _values(one):
                    return True
    return False


def _is_named(value: Node, functions: frozenset[Path], paths: frozenset[Path]) -> bool:
    called = isinstance(value, Call) and value.name in functions
    return called or (isinstance(value, Call | Op) and not paths.isdisjoint(claims(value)))


def null_escapes(expression: str, table: str = "") -> bool:
    """True when the very absence of a session value opens a disjunct: ``auth.uid() is null or ...``.

    Also COALESCE falling back to the column itself or to true, and a comparison of a setting with ''. A disjunct
    that the row narrows (``auth.uid() is null and is_public``) is meant, and does not count.
    """
    root = _parsed(expression, table).root
    return not fixed(root)[0] and escapes(root)


def per_row_calls(expression: str) -> frozenset[Path]:
    """The auth.* and current_setting calls outside an uncorrelated scalar subquery: run for each row."""
    return frozenset(_parsed(expression, "").per_row)


# Ties: what every way to be true must pass


@dataclass(frozen=True, slots=True)
class _Goal:
    """What has to be tied: columns of the row, or any column of the named FROM items."""

    columns: frozenset[str]
    session: bool  # to the session, otherwise to anything that varies
    names: frozenset[str] = frozenset()

    def counts(self, node: Node) -> bool:
        if not isinstance(node, Column):
            return False
        return node.of in self.names if node.of else node.name in self.columns or (node.name == "*" and not self.names)


def _depends(node: Node) -> bool:
    """Whether the value follows the session: current_setting, current_user, any function not known to be pure."""
    match node:
        case Sub():
            return all(_session_arm(arm, node.kind == "exists") for arm in node.arms)
        case Column(source=Call(name=("", "trusted"), args=keys)):  # its own row security shows the session's rows
            return Const(node.name) in keys
        case Column():
            return node.source is not None and _depends(node.source)
        case Call(name=("", "recursion")):  # its rows descend from those of the other arm, which is asked too
            return True
        case Coalesce():  # whatever it falls back to must not be a value of somebody's
            return any(map(_depends, node.args)) and all(_depends(a) or _nobody(a) for a in node.args)
        case Case():
            results = [*(result for _, result in node.branches), node.default]
            return any(map(_depends, results)) and all(_depends(r) or _nobody(r) for r in results)
        case Op(name="||") | Call(name=("array_cat" | "array_append" | "array_prepend",)) if any(map(_list, node.args)):
            return all(map(_depends, node.args))
        case Call(name=("", "array")):
            return bool(node.args) and all(map(_depends, node.args))
    return (isinstance(node, Call) and opaque(node)) or any(map(_depends, children(node)))


def _list(node: Node) -> bool:
    """Whether the value is written out as an array."""
    while isinstance(node, Cast):
        node = node.arg
    return (isinstance(node, Call) and node.name == ("", "array")) or (isinstance(node, Sub) and node.kind == "array")


def _nobody(node: Node) -> bool:
    """Whether the value is null, empty, or the nil UUID: nobody's."""
    while isinstance(node, Cast):
        node = node.arg
    return isinstance(node, Const) and (node.value is None or not str(node.value).strip("0-{}"))


def _session_arm(arm: Arm, any_value: bool) -> bool:
    """Whether the rows are the session's, and their values come out of them."""
    if any(map(_depends, arm.targets)):
        return True
    goal = _Goal(frozenset(), session=True, names=arm.names)
    varies = any_value or any(isinstance(n, Column) for target in arm.targets for n in walk(target))
    return varies and any(_forced(condition, goal) for condition in arm.conditions)


def _passes(sub: Sub, goal: _Goal) -> bool:
    """Whether each row of the subquery comes from a condition or a source that ties the goal's columns."""
    return all(
        any(_forced(condition, goal) for condition in arm.conditions)
        or any(_gate(source, goal) for source in arm.sources)
        for arm in sub.arms
    )


def _linked(sub: Sub, goal: _Goal) -> bool:
    """Whether each row of the subquery is tied to the goal's columns."""
    return _passes(sub, replace(goal, session=False))


def _varies(node: Node) -> bool:
    return any(isinstance(n, Column) and n.of for n in walk(node)) or _depends(node)


def _values(node: Node) -> Iterator[Node]:
    """What a value may be, seen through everything that passes one of its parts on unchanged."""
    match node:
        case Cast():
            yield from _values(node.arg)
        case Coalesce():
            for arg in node.args:
                yield from _values(arg)
        case Call(name=("", "nullif")) | Call(name=("lower",)) | Call(name=("upper",)) | Call(name=("btrim",)):
            yield from _values(node.args[0])
        case Call(name=("", "array")) | Call(name=("", "row")):
            for arg in node.args:
                yield from _values(arg)
        case Case():
            for _, result in node.branches:
                yield from _values(result)
            yield from _values(node.default)
        case Sub():
            for arm in node.arms:
                for target in arm.targets:
                    yield from _values(target)
        case _:
            yield node


def _yields(node: Node) -> Iterator[Node]:
    """The columns that may come out of a value, also through functions and operators."""
    for value in _values(node):
        if isinstance(value, Column):
            yield value
            yield from () if value.source is None else _yields(value.source)
        elif isinstance(value, Call | Op):
            for arg in value.args:
                yield from _yields(arg)


def _tied(node: Node, goal: _Goal) -> set[Node]:
    """The goal's columns that this side of a comparison stands for (a correlated subquery stands for itself)."""
    match node:
        case Column():
            return {node} if goal.counts(node) else set()
        case Cast():
            return _tied(node.arg, goal)
        case Coalesce():
            return set() if any(map(_depends, node.args[1:])) else _tied(node.args[0], goal)
        case Call(name=("", "[]")) | Call(name=("", ".")) | Call(name=("", "nullif")):
            return _tied(node.args[0], goal)
        case Call() if builtin(node) and node.name[-1] not in FAITHFUL:
            return set()
        case Call(name=("", "array")):  # any element may be the one that matches
            found = [_tied(arg, goal) for arg in node.args]
            return set().union(*found) if all(found) else set()
        case Op() if node.name != "||" and node.name not in JSON:
            return set()
        case Call() | Op():
            return {found for arg in node.args for found in _tied(arg, goal)}
        case Sub():
            return {node} if _linked(node, goal) else set()
    return set()


def _gate(node: Node, goal: _Goal) -> bool:
    """Whether the value exists only because a function or a lookup accepted one of the goal's columns."""
    match node:
        case Cast():
            return _gate(node.arg, goal)
        case Coalesce():
            return all(_gate(arg, goal) for arg in node.args)
        case Call() if opaque(node):
            return any(goal.counts(n) for arg in node.args for n in walk(arg))
        case Call() | Op() if not isinstance(node, Call) or node.name[-1] != "greatest":
            passes = isinstance(node, Call) or node.name in JSON
            return passes and bool(node.args) and _gate(node.args[0], goal)
        case Sub():
            if _counted(node):
                return False
            tied = _linked(node, goal) and (not goal.session or all(_session_arm(arm, True) for arm in node.arms))
            return tied or _passes(node, goal)
    return False


def _counted(sub: Sub) -> bool:
    """Whether the subquery has a value even when nothing matches: only a plain aggregate but count() has none."""
    return any(arm.counts and (sub.kind == "exists" or not _plain_aggregate(arm)) for arm in sub.arms)


def _plain_aggregate(arm: Arm) -> bool:
    values = [target.arg if isinstance(target, Cast) else target for target in arm.targets]
    return all(isinstance(v, Call) and v.name[0] in AGGREGATES and v.name != ("count",) for v in values)


def _side(one: Node, other: Node, goal: _Goal) -> bool:
    tied = _tied(one, goal)
    if not tied or not tied - set(_yields(other)):
        return False
    if not goal.session:
        return _varies(other)
    row = isinstance(other, Sub) and isinstance(one, Call) and one.name == ("", "row")
    return _looked_up(one, other, goal) if row else _depends(other)


def _looked_up(one: Node, other: Node, goal: _Goal) -> bool:
    """``(org_id, auth.uid()) in (select m.org_id, m.user_id ...)``: each value is compared with its own column."""
    assert isinstance(one, Call), "a row"
    assert isinstance(other, Sub), "against the rows of a subquery"
    return all(
        any(_forced(condition, _Goal(frozenset(), session=True, names=arm.names)) for condition in arm.conditions)
        or any((_depends(value) and isinstance(_bare(target), Column)) or (_tied(value, goal) and _depends(target))
               for value, target in zip(one.args, arm.targets, strict=False))
        for arm in other.arms
    )  # fmt: skip


def _bare(node: Node) -> Node:
    while isinstance(node, Cast):
        node = node.arg
    return node


def _forced(node: Node, goal: _Goal, wanted: bool = True) -> bool:
    """Whether every way for the node to become the wanted value ties one of the goal's columns."""
    match node:
        case Not():
            return _forced(node.arg, goal, not wanted)
        case Junction() if node.every == wanted:
            return any(_forced(arg, goal, wanted) for arg in node.args)
        case Junction():
            return all(_forced(arg, goal, wanted) or _impossible(arg, wanted) for arg in node.args)
        case Is():
            if node.value is None:
                return not wanted and _gate(node.arg, goal)
            return wanted and _forced(node.arg, goal, node.value)
        case Case():
            pairs = (*node.branches, (Const(True), node.default))
            return all(
                _forced(condition, goal) or _forced(result, goal, wanted) or _impossible(result, wanted)
                for condition, result in pairs
            )
        case Coalesce():
            return all(_forced(arg, goal, wanted) or _impossible(arg, wanted) for arg in node.args)
        case Op() if node.over == "all" or len(node.args) != 2:
            return False
        case Op():
            left, right = node.args
            if node.name in _EQUALITIES and isinstance(right, Const) and isinstance(right.value, bool):
                return (wanted or node.name == "=") and _forced(left, goal, right.value == wanted)
            if wanted and node.name in _LINKS and any(_side(one, other, goal) for one, other in _ways(node)):
                return True
            strict = node.name == "<" or (node.name == "=" and wanted)
            gates = (_gate(one, goal) and not any(map(goal.counts, _yields(other))) for one, other in _ways(node))
            return strict and (any(gates) or _positive(node, goal, wanted))
        case Sub(kind="scalar", arms=(Arm(counts=True, targets=(Op(name="<" | "=" as name, args=args),)) as arm,)):
            counted = tuple(Sub("scalar", (replace(arm, targets=(a,)),)) if _is_count(a) else a for a in args)
            return _forced(Op(name, counted), goal, wanted) if counted != args else wanted and _gate(node, goal)
        case Sub() | Call() | Cast():
            scalar = isinstance(node, Sub) and node.kind == "scalar"
            return (wanted or scalar) and _gate(node, goal)
    return False


def _ways(op: Op) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
    left, right = op.args
    return (left, right), (right, left)


def _is_count(node: Node) -> bool:
    return isinstance(node, Call) and node.name == ("count",)


def _positive(op: Op, goal: _Goal, wanted: bool) -> bool:
    """``(select count(*) ...) > 0`` and its spellings, where the counted rows are tied."""
    for sub, bound in _ways(op):
        match sub, bound:
            case Sub(kind="scalar", arms=(Arm(targets=(target,)) as arm,)), Const(value=int(limit)) if _is_count(
                target
            ):
                least = limit if op.name == "=" or not wanted else limit + 1
                upwards = op.name == "=" or (sub is op.args[1]) == wanted
                return upwards and least >= 1 and _gate(Sub("set", (replace(arm, counts=False),)), goal)
    return False


def _impossible(node: Node, wanted: bool) -> bool:
    return never(node if wanted else Not(node))
