"""Which outcomes an expression can have at all, in SQL's three values: what is said to be fixed is proven to be.
It knows nothing of tenants.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from pgconform.expression_tree import (
    NEVER_NULL,
    Arm,
    Call,
    Case,
    Cast,
    Coalesce,
    Column,
    Const,
    Is,
    Junction,
    Node,
    Not,
    Op,
    Sub,
    children,
    opaque,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_F, _T, _N = 1, 2, 4  # a set of possible outcomes: false, true (for other values: not null), null
_ANY = _F | _T | _N
_INVERTED = [(m & _N) | (_T if m & _F else 0) | (_F if m & _T else 0) for m in range(8)]
_MOST_VARIABLES = 5
_STRICT = frozenset(("=", "<", "~~", "~~*", "~", "~*"))
_STRICT_CALLS = frozenset(("lower", "upper", "btrim", "md5", "length", "char_length", "string_to_array"))
_MATCH_ALL = {
    "~~": ("%", "%%"),
    "~~*": ("%", "%%"),
    "~": ("", "^", ".*", "^.*", "^.*$"),
    "~*": ("", "^", ".*"),
}


@dataclass(frozen=True, slots=True)
class _World:
    known: bool = False  # the row holds no null
    absent: bool = False  # the session has no identity: its functions and settings yield null
    fixed: Mapping[Node, int] = field(default_factory=dict)


def _possible(node: Node, world: _World) -> int:
    match node:
        case Op():
            return _operation(node, world)
        case Column():
            return world.fixed.get(node, _ANY) & (~_N if world.known else _ANY)
        case Junction():
            outcomes = _T if node.every else _F
            for arg in node.args:
                outcomes = _BOTH[node.every][outcomes][_possible(arg, world)]
            return outcomes
        case Not():
            return _INVERTED[_possible(node.arg, world)]
        case Is():
            inner = _possible(node.arg, world)
            wanted = _N if node.value is None else _T if node.value else _F
            return (_T if inner & wanted else 0) | (_F if inner & ~wanted else 0)
        case Const():
            return _N if node.value is None else _F if node.value is False else _T
        case Call():
            outcome = _call(node, world)
            return world.fixed.get(node, _ANY) & outcome or outcome
        case Cast():
            return _possible(node.arg, world)
        case Coalesce():
            outcomes = _N
            for arg in node.args:
                if outcomes & _N:
                    outcomes = outcomes & ~_N | _possible(arg, world)
            return outcomes
        case Case():
            outcomes = 0
            for condition, result in node.branches:
                met = _possible(condition, world)
                outcomes |= _possible(result, world) if met & _T else 0
                if met == _T:
                    return outcomes
            return outcomes | _possible(node.default, world)
        case Sub():
            if node.kind != "exists":
                return _T if node.kind == "array" else world.fixed.get(node, _ANY)
            arms = [_rows(arm, world) for arm in node.arms]
            return _T if _T in arms else _F if set(arms) == {_F} else world.fixed.get(node, _T | _F)


def _rows(arm: Arm, world: _World) -> int:
    if arm.counts:
        return _T if arm.single else _T | _F
    conditions = [_possible(condition, world) for condition in arm.conditions]
    if any(not outcome & _T for outcome in conditions):
        return _F
    sure = arm.single and all(outcome == _T for outcome in conditions)
    return _T if sure and not any(isinstance(n, Call) for t in arm.targets for n in walk(t)) else _T | _F


def _call(call: Call, world: _World) -> int:
    name = call.name[-1]
    if call.name in (("", "row"), ("", "array")) or (len(call.name) == 1 and name in NEVER_NULL):
        return _T
    if call.name == ("", "nullif"):
        first, second = call.args
        return _N if first == second or _possible(first, world) == _N else _ANY
    if opaque(call):
        return _N if world.absent and not any(isinstance(n, Column) for n in walk(call)) else _ANY
    if name not in _STRICT_CALLS:
        return _ANY
    args = [_possible(arg, world) for arg in call.args]
    return _N if _N in args else _ANY if any(arg & _N for arg in args) else _F | _T


def _plain(node: Node, world: _World) -> Node:
    """The part of a COALESCE that its value certainly is, if one can be told."""
    if isinstance(node, Coalesce):
        for arg in node.args:
            outcome = _possible(arg, world)
            if outcome != _N:
                return node if outcome & _N else arg
    return node


def _operation(op: Op, world: _World) -> int:
    if op.over or len(op.args) != 2:
        return world.fixed.get(op, _ANY)
    left, right = _plain(op.args[0], world), _plain(op.args[1], world)
    one, other = _possible(left, world), _possible(right, world)
    nulls = (one | other) & _N
    if op.name == "is":
        return _same(op, one, other)
    if op.name == "||":
        return _ANY if nulls else _F | _T
    if op.name not in _STRICT:
        return _N if _N in (one, other) else world.fixed.get(op, _ANY)
    if world.absent and one == _N and isinstance(left, Call) and left.name[0] and right == Const(""):
        return _T  # a setting that was reset reads as an empty text
    if _N in (one, other):
        return _N
    if left == right:
        return {"<": _F, "=": _T}.get(op.name, _F | _T) | nulls
    if isinstance(right, Const):
        if isinstance(right.value, bool) and op.name == "=":
            return one if right.value else _INVERTED[one]
        if right.value in _MATCH_ALL.get(op.name, ()):
            return _T | nulls
        if op.name == "<" and right.value == "":
            return _F | nulls
        if isinstance(left, Const) and type(left.value) is type(right.value) and op.name == "=":
            return _T if left.value == right.value else _F
        if isinstance(left, Const) and isinstance(left.value, int) and isinstance(right.value, int):
            return _T if left.value < right.value else _F
    return world.fixed.get(op, _F | _T) | nulls


def _same(op: Op, one: int, other: int) -> int:
    """IS NOT DISTINCT FROM, which is never null."""
    left, right = op.args
    if left == right or one == other == _N:
        return _T
    if _N in (one, other):
        return (_T if one & other & _N else 0) | (_F if (one | other) & ~_N else 0)
    if isinstance(right, Const) and isinstance(right.value, bool):
        wanted = _T if right.value else _F
        return (_T if one & wanted else 0) | (_F if one & ~wanted else 0)
    return _F | _T


def _both(every: bool, one: int, other: int) -> int:
    """The outcomes of AND (or OR) over two sets of outcomes."""
    weak, strong = (_F, _T) if every else (_T, _F)
    both = (one | other) & weak | one & other & strong
    return both | (_N if (one & _N and other & ~weak) or (other & _N and one & ~weak) else 0)


_BOTH = [[[_both(every, one, other) for other in range(8)] for one in range(8)] for every in (False, True)]


def _repeated(node: Node) -> list[Node]:
    """The nodes of unknown outcome that occur more than once: only these can fix an outcome together."""
    seen: Counter[Node] = Counter()
    stack = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, Column | Call | Op | Sub):
            seen[current] += 1
        if not isinstance(current, Sub):
            stack.extend(children(current))
    often = [(count, current) for current, count in seen.items() if count > 1]
    return [current for _, current in sorted(often, key=lambda pair: -pair[0])[:_MOST_VARIABLES]]


def _worlds(variables: list[Node], known: bool) -> Iterator[_World]:
    for outcomes in product(*(_domain(variable, known) for variable in variables)):
        yield _World(known, False, dict(zip(variables, outcomes, strict=True)))


def _domain(node: Node, known: bool) -> tuple[int, ...]:
    compared = isinstance(node, Op) and (node.name in _STRICT or node.name == "is") and not node.over
    return (_T, _F) if compared or (known and isinstance(node, Column)) else (_T, _F, _N)


@cache
def fixed(node: Node) -> tuple[bool, bool]:
    """Whether the node is always true, and whether it is never true."""
    free = _possible(node, _World())
    if not free & _T:
        return False, True
    if not free & _F and _possible(node, _World(known=True)) == _T:
        return True, False
    variables = _repeated(node)
    if not variables:
        return False, False
    true = false = True
    for world in _worlds(variables, False):
        outcome = _possible(node, world)
        true, false = true and not outcome & _F, false and not outcome & _T
        if not true and not false:
            return False, False
    return true and all(_possible(node, world) == _T for world in _worlds(variables, True)), false


def never(node: Node) -> bool:
    return fixed(node)[1]
