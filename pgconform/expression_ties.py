"""Ties: whether every way for an expression to be true must pass a comparison with the session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
    Is,
    Junction,
    Node,
    Not,
    Op,
    Sub,
    builtin,
    children,
    opaque,
    walk,
)
from pgconform.expression_truth import never

if TYPE_CHECKING:
    from collections.abc import Iterator

EQUALITIES = frozenset(("=", "is"))
_LINKS = EQUALITIES | {"@>", "<@", "&&", "?", "?|"}


@dataclass(frozen=True, slots=True)
class Goal:
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
    goal = Goal(frozenset(), session=True, names=arm.names)
    varies = any_value or any(isinstance(n, Column) for target in arm.targets for n in walk(target))
    return varies and any(forced(condition, goal) for condition in arm.conditions)


def _passes(sub: Sub, goal: Goal) -> bool:
    """Whether each row of the subquery comes from a condition or a source that ties the goal's columns."""
    return all(
        any(forced(condition, goal) for condition in arm.conditions)
        or any(_gate(source, goal) for source in arm.sources)
        for arm in sub.arms
    )


def _linked(sub: Sub, goal: Goal) -> bool:
    """Whether each row of the subquery is tied to the goal's columns."""
    return _passes(sub, replace(goal, session=False))


def _varies(node: Node) -> bool:
    return any(isinstance(n, Column) and n.of for n in walk(node)) or _depends(node)


def values(node: Node) -> Iterator[Node]:
    """What a value may be, seen through everything that passes one of its parts on unchanged."""
    match node:
        case Cast():
            yield from values(node.arg)
        case Coalesce():
            for arg in node.args:
                yield from values(arg)
        case Call(name=("", "nullif")) | Call(name=("lower",)) | Call(name=("upper",)) | Call(name=("btrim",)):
            yield from values(node.args[0])
        case Call(name=("", "array")) | Call(name=("", "row")):
            for arg in node.args:
                yield from values(arg)
        case Case():
            for _, result in node.branches:
                yield from values(result)
            yield from values(node.default)
        case Sub():
            for arm in node.arms:
                for target in arm.targets:
                    yield from values(target)
        case _:
            yield node


def _yields(node: Node) -> Iterator[Node]:
    """The columns that may come out of a value, also through functions and operators."""
    for value in values(node):
        if isinstance(value, Column):
            yield value
            yield from () if value.source is None else _yields(value.source)
        elif isinstance(value, Call | Op):
            for arg in value.args:
                yield from _yields(arg)


def _tied(node: Node, goal: Goal) -> set[Node]:
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


def _gate(node: Node, goal: Goal) -> bool:
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


def _side(one: Node, other: Node, goal: Goal) -> bool:
    tied = _tied(one, goal)
    if not tied or not tied - set(_yields(other)):
        return False
    if not goal.session:
        return _varies(other)
    row = isinstance(other, Sub) and isinstance(one, Call) and one.name == ("", "row")
    return _looked_up(one, other, goal) if row else _depends(other)


def _looked_up(one: Node, other: Node, goal: Goal) -> bool:
    """``(org_id, auth.uid()) in (select m.org_id, m.user_id ...)``: each value is compared with its own column."""
    assert isinstance(one, Call), "a row"
    assert isinstance(other, Sub), "against the rows of a subquery"
    return all(
        any(forced(condition, Goal(frozenset(), session=True, names=arm.names)) for condition in arm.conditions)
        or any((_depends(value) and isinstance(_bare(target), Column)) or (_tied(value, goal) and _depends(target))
               for value, target in zip(one.args, arm.targets, strict=False))
        for arm in other.arms
    )  # fmt: skip


def _bare(node: Node) -> Node:
    while isinstance(node, Cast):
        node = node.arg
    return node


def forced(node: Node, goal: Goal, wanted: bool = True) -> bool:
    """Whether every way for the node to become the wanted value ties one of the goal's columns."""
    match node:
        case Not():
            return forced(node.arg, goal, not wanted)
        case Junction() if node.every == wanted:
            return any(forced(arg, goal, wanted) for arg in node.args)
        case Junction():
            return all(forced(arg, goal, wanted) or _impossible(arg, wanted) for arg in node.args)
        case Is():
            if node.value is None:
                return not wanted and _gate(node.arg, goal)
            return wanted and forced(node.arg, goal, node.value)
        case Case():
            pairs = (*node.branches, (Const(True), node.default))
            return all(
                forced(condition, goal) or forced(result, goal, wanted) or _impossible(result, wanted)
                for condition, result in pairs
            )
        case Coalesce():
            return all(forced(arg, goal, wanted) or _impossible(arg, wanted) for arg in node.args)
        case Op() if node.over == "all" or len(node.args) != 2:
            return False
        case Op():
            left, right = node.args
            if node.name in EQUALITIES and isinstance(right, Const) and isinstance(right.value, bool):
                return (wanted or node.name == "=") and forced(left, goal, right.value == wanted)
            if wanted and node.name in _LINKS and any(_side(one, other, goal) for one, other in ways(node)):
                return True
            strict = node.name == "<" or (node.name == "=" and wanted)
            gates = (_gate(one, goal) and not any(map(goal.counts, _yields(other))) for one, other in ways(node))
            return strict and (any(gates) or _positive(node, goal, wanted))
        case Sub(kind="scalar", arms=(Arm(counts=True, targets=(Op(name="<" | "=" as name, args=args),)) as arm,)):
            counted = tuple(Sub("scalar", (replace(arm, targets=(a,)),)) if _is_count(a) else a for a in args)
            return forced(Op(name, counted), goal, wanted) if counted != args else wanted and _gate(node, goal)
        case Sub() | Call() | Cast():
            scalar = isinstance(node, Sub) and node.kind == "scalar"
            return (wanted or scalar) and _gate(node, goal)
    return False


def ways(op: Op) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
    left, right = op.args
    return (left, right), (right, left)


def _is_count(node: Node) -> bool:
    return isinstance(node, Call) and node.name == ("count",)


def _positive(op: Op, goal: Goal, wanted: bool) -> bool:
    """``(select count(*) ...) > 0`` and its spellings, where the counted rows are tied."""
    for sub, bound in ways(op):
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
