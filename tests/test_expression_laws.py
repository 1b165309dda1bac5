"""Policy expressions: laws that hold for all of them, against brute force and under hostile names."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pgconform.expression_parser import parse
from pgconform.expression_tree import Case, Coalesce, Column, Const, Is, Junction, Node, Not, Op
from pgconform.expressions import ExpressionError, constrains, shape
from tests.test_expressions import ALWAYS_FALSE, ALWAYS_TRUE, COLUMNS, CONSTRAINS, FREE

ATOMS = ("a", "b")
LEAVES = st.sampled_from(
    [*ATOMS, "true", "false", "NULL::boolean", "(a IS NULL)", "(b IS NOT TRUE)", "(a = b)", "(a <> a)"]
)
BOOLEANS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
        st.builds("COALESCE({}, {})".format, inner, inner),
        st.builds("(( SELECT {}) IS NOT FALSE)".format, inner),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner),
    ),
    max_leaves=8,
)


def outcome(node: Node, row: dict[str, bool | None]) -> bool | None:
    """The truth, by SQL's definitions, of one node for one row."""
    match node:
        case Const():
            return node.value if isinstance(node.value, bool) else None
        case Column():
            return row[node.name]
        case Not():
            inner = outcome(node.arg, row)
            return None if inner is None else not inner
        case Is():
            return outcome(node.arg, row) is node.value
        case Junction():
            values = [outcome(arg, row) for arg in node.args]
            return (not node.every) if (not node.every) in values else None if None in values else node.every
        case Coalesce():
            return next((v for v in (outcome(arg, row) for arg in node.args) if v is not None), None)
        case Case():
            chosen = (result for condition, result in node.branches if outcome(condition, row))
            return outcome(next(chosen, node.default), row)
        case Op(name="=", args=(left, right)):
            pair = outcome(left, row), outcome(right, row)
            return None if None in pair else pair[0] is pair[1]
    raise AssertionError(node)


@settings(max_examples=300, deadline=None)
@given(BOOLEANS)
def test_claims_of_truth_never_contradict_brute_force(expression: str) -> None:
    root = parse(expression).root
    rows = [dict(zip(ATOMS, values, strict=True)) for values in itertools.product((True, False, None), repeat=2)]
    found = shape(expression)
    outcomes = {tuple(row.values()): outcome(root, row) for row in rows}
    never_false = False not in outcomes.values()
    always = never_false and all(truth for values, truth in outcomes.items() if None not in values)
    never = True not in outcomes.values()
    assert always or not found.always_true
    assert never or not found.always_false
    if "=" not in expression:  # then its two atoms are independent, and nothing may be missed either
        assert (found.always_true, found.always_false) == (always and not never, never)


TIES = st.sampled_from([*CONSTRAINS, *FREE, *ALWAYS_TRUE, *ALWAYS_FALSE])


@settings(max_examples=300, deadline=None)
@given(TIES, TIES)
def test_constraining_follows_and_and_or(one: str, other: str) -> None:
    first, second = (constrains(each, COLUMNS, "t") for each in (one, other))
    assert constrains(f"({one}) AND ({other})", COLUMNS, "t") >= (first or second)
    assert constrains(f"({one}) OR ({other})", COLUMNS, "t") == (first and second)
    assert constrains(f"NOT (NOT ({one}))", COLUMNS, "t") == first
    assert constrains(f"( SELECT ({one}))", COLUMNS, "t") == first


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=20), st.text(max_size=12))
def test_hostile_names_and_texts_end_in_an_answer_or_an_expression_error(name: str, text: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    for expression in (f"{quoted} = auth.uid()", text, f"t.{quoted} IS NULL AND {text}"):
        try:
            found = shape(expression, "t")
        except ExpressionError:
            continue
        if expression.startswith('"') and len(name.encode()) < 64:
            assert found.columns == {name}
            assert constrains(expression, [name], "t")
