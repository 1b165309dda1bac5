"""What can be told about a policy's boolean expression from its text alone: parsed, never matched as text.

Nothing here talks to a server, so what a function does is unknown: built-in functions on the list of pure ones
only pass their arguments on; every other function is taken to depend on the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from pgconform.expression_parser import Parsed, parse
from pgconform.expression_ties import EQUALITIES, Goal, forced, values, ways
from pgconform.expression_tree import (
    Call,
    Cast,
    Column,
    Const,
    ExpressionError,
    Junction,
    Node,
    Op,
    Path,
    Sub,
    Trusted,
    children,
    claims,
    walk,
)
from pgconform.expression_truth import fixed, never

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = [
    "ExpressionError",
    "Shape",
    "calls_alone",
    "compares",
    "constant",
    "constrains",
    "is_cast_of",
    "mentioned",
    "per_row_calls",
    "shape",
]


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


def _row(expression: str, table: str) -> str:
    """The table's name where the text may qualify the row's columns by it; thousands of tables have the same policies,
    and these are then parsed once."""
    return table if not table or table.replace('"', '""') in expression else "\0"


def shape(expression: str, table: str = "") -> Shape:
    """What the expression reads and calls, and whether its outcome is fixed.

    Always true: never false, and true for every row without nulls (``x = x`` is), whatever the session. Always
    false: it lets no row through; null counts as false. Both are proven: False may also mean "not known".
    ExpressionError for text that is not one expression.
    """
    return _shape(expression, _row(expression, table))


@cache
def _shape(expression: str, table: str) -> Shape:
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


def mentioned(expression: str, table: str = "") -> frozenset[str]:
    """The names of all columns in it: the row's, and those of whatever its subqueries look up."""
    parsed = _parsed(expression, _row(expression, table))
    return frozenset(node.name for node in walk(parsed.root) if isinstance(node, Column)) | parsed.columns


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


def is_cast_of(expression: str, column: str, through: str = "") -> bool:
    """True when the expression is the column itself, or a function of it that is called so, as another type, and
    nothing more."""
    node = parse(expression).root
    if not isinstance(node, Cast):
        return False
    inner = node.arg
    if through:
        if not (isinstance(inner, Call) and inner.name[-1] == through and len(inner.args) == 1):
            return False
        inner = inner.args[0]
    return isinstance(inner, Column) and inner.name == column


@cache
def _constrains(expression: str, columns: frozenset[str], table: str, trusted: Trusted) -> bool:
    root = _parsed(expression, table, trusted).root
    return forced(root, Goal(columns, session=True)) or never(root)


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
    return _constrains(expression, frozenset(columns), _row(expression, table), trusted)


def compares(
    expression: str, column: str, functions: Collection[Path], table: str = "", paths: Collection[Path] = ()
) -> bool:
    """True when the row's column is compared for equality, anywhere, directly with a named function's result, or
    with what the session's JWT holds at one of the paths.

    Casts, scalar subqueries, NULLIF, COALESCE, lower() and the order of the sides do not hide it.
    """
    named = frozenset(functions)
    for node in walk(_parsed(expression, _row(expression, table)).root):
        if isinstance(node, Op) and node.name in EQUALITIES and node.over != "all":
            for one, other in ways(node):
                named_there = any(_is_named(value, named, frozenset(paths)) for value in values(other))
                if named_there and Column(column) in values(one):
                    return True
    return False


def _is_named(value: Node, functions: frozenset[Path], paths: frozenset[Path]) -> bool:
    called = isinstance(value, Call) and value.name in functions
    return called or (isinstance(value, Call | Op) and not paths.isdisjoint(claims(value)))


def per_row_calls(expression: str) -> frozenset[Path]:
    """The auth.* and current_setting calls that ask no row, outside an uncorrelated scalar subquery: run for each."""
    return frozenset(_parsed(expression, "").per_row)


def calls_alone(expression: str, column: str, functions: Collection[Path], table: str = "") -> frozenset[Path]:
    """The functions called where nothing beside them asks: that names the column of another table, or calls one of the
    functions. What stands on another side of an OR is not beside a call; all is beside a column that is named in the
    text and not in the tree, which leaves the conditions of outer joins out."""
    parsed, asked = _parsed(expression, _row(expression, table)), frozenset(functions)
    if column in expression and not any(isinstance(n, Column) and n.name == column for n in walk(parsed.root)):
        return frozenset()

    def asks(node: Node) -> bool:
        columns = any(isinstance(n, Column) and n.of and n.name == column for n in walk(node))
        return columns or any(isinstance(n, Call) and n.name in asked for n in walk(node))

    return frozenset(_alone(parsed.root, asks)) - asked


def _alone(node: Node, asks: Callable[[Node], bool]) -> Iterator[Path]:
    if isinstance(node, Call):
        yield node.name
    for beside in _together(node):
        for part in beside:
            if not any(asks(other) for other in beside if other is not part):
                yield from _alone(part, asks)


def _together(node: Node) -> list[tuple[Node, ...]]:
    """What is below a node, by what must hold together, as far as anything must."""
    match node:
        case Junction(every=False):
            return [(arg,) for arg in node.args]
        case Sub():
            return [arm.targets + arm.conditions + arm.sources for arm in node.arms]
    return [tuple(children(node))]
