"""The nodes of a small tree of SQL expressions, one spelling for each thing that can be said, and what names and
paths in it mean by themselves; it parses nothing and imports nothing.

``a <> b`` is ``not (a = b)``, lists and BETWEEN are spelt out, rows are compared pairwise, ``(select f())`` is
``f()``, and casts to text vanish.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pgconform.model import NotVerified

if TYPE_CHECKING:
    from collections.abc import Iterator

Path: TypeAlias = tuple[str, ...]


class ExpressionError(NotVerified):
    """The text is not one SQL expression, or it is nested too deeply to be judged."""


@dataclass(frozen=True, slots=True)
class Const:
    value: bool | int | str | None


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    of: str = ""  # the FROM item that it belongs to; empty: the row itself
    source: Node | None = field(default=None, compare=False)  # that item, when it is a function or a subquery


@dataclass(frozen=True, slots=True)
class Call:
    """A function, or with an empty first name a piece of syntax that acts like one: row, array, nullif, [] ..."""

    name: Path
    args: tuple[Node, ...] = ()
    nonce: int = 0  # tells two calls of a volatile function apart


@dataclass(frozen=True, slots=True)
class Cast:
    arg: Node
    type: str


@dataclass(frozen=True, slots=True)
class Op:
    """An operator; ``is`` is IS NOT DISTINCT FROM. Of the comparisons only ``=``, ``<`` and ``is`` remain."""

    name: str
    args: tuple[Node, ...]
    over: str = ""  # "any" or "all" when the right side is an array or a subquery


@dataclass(frozen=True, slots=True)
class Junction:
    every: bool  # AND, otherwise OR
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    arg: Node


@dataclass(frozen=True, slots=True)
class Is:
    """IS NULL (value None), IS TRUE, IS FALSE; their negations are under Not. IS UNKNOWN is IS NULL."""

    arg: Node
    value: bool | None


@dataclass(frozen=True, slots=True)
class Case:
    branches: tuple[tuple[Node, Node], ...]
    default: Node


@dataclass(frozen=True, slots=True)
class Coalesce:
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """One SELECT (or VALUES row) of a subquery."""

    names: frozenset[str]  # what its FROM clause binds
    targets: tuple[Node, ...]
    conditions: tuple[Node, ...]  # each must be true for a row to come out
    sources: tuple[Node, ...]  # functions and subqueries in FROM, unless an outer join makes them optional
    single: bool  # one row if the conditions hold; with counts, whether they hold or not
    counts: bool  # it aggregates without GROUP BY, so that rows come out even where nothing matches


@dataclass(frozen=True, slots=True)
class Sub:
    kind: str  # exists, scalar, array, set
    arms: tuple[Arm, ...]


Node: TypeAlias = Const | Column | Call | Cast | Op | Junction | Not | Is | Case | Coalesce | Sub


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below one, those of subqueries included."""
    match node:
        case Call() | Op() | Junction() | Coalesce():
            yield from node.args
        case Cast() | Not() | Is():
            yield node.arg
        case Case():
            for pair in node.branches:
                yield from pair
            yield node.default
        case Sub():
            for arm in node.arms:
                yield from arm.targets + arm.conditions + arm.sources


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


AGGREGATES = _words("""count sum min max avg bool_and bool_or every array_agg string_agg json_agg jsonb_agg""")
NEVER_NULL = _words(
    """current_user session_user current_date current_time current_timestamp localtime localtimestamp
    now"""
)
LOSSY = _words(
    """length char_length octet_length bit_length cardinality array_length left right substr substring abs
    sign mod date_trunc date_part extract count ascii jsonb_typeof jsonb_array_length greatest"""
)
# Built-in functions whose result follows from their arguments (or the clock): nothing of the session comes in.
PURE = (
    LOSSY
    | NEVER_NULL - {"current_user", "session_user"}
    | _words(
        """lower upper initcap trim btrim ltrim rtrim lpad rpad concat concat_ws replace translate reverse
        repeat split_part string_to_array array_to_string array_append array_prepend array_cat array_remove
        array_position array_positions unnest generate_series generate_subscripts strpos position
        starts_with regexp_replace regexp_match regexp_matches regexp_split_to_array regexp_split_to_table
        regexp_like md5 sha224 sha256 sha384 sha512 encode decode digest hmac hashtext hashtextextended
        quote_ident quote_literal format chr to_char to_date to_number to_timestamp text uuid int4 int8 bool
        numeric ceil ceiling floor round trunc power sqrt timezone age make_interval make_date isfinite
        clock_timestamp statement_timestamp transaction_timestamp timeofday random gen_random_uuid uuidv4
        uuidv7 sum min max avg bool_and bool_or every array_agg string_agg json_agg jsonb_agg coalesce
        num_nulls num_nonnulls to_json to_jsonb row_to_json json_build_object jsonb_build_object
        json_build_array jsonb_build_array json_extract_path json_extract_path_text jsonb_extract_path
        jsonb_extract_path_text jsonb_array_elements jsonb_array_elements_text json_array_elements
        json_array_elements_text jsonb_object_keys json_object_keys jsonb_each jsonb_each_text jsonb_exists
        jsonb_exists_any jsonb_exists_all jsonb_contains jsonb_path_exists jsonb_path_query overlay texteq
        uuid_eq int4eq int8eq similar_to_escape like_escape normalize pg_typeof lower_inc upper_inc isempty
        range_merge current_catalog current_schema version row_number rank first_value"""
    )
)
PURE_PATHS = frozenset((("storage", "foldername"), ("storage", "filename"), ("storage", "extension")))
JSON = frozenset(("->", "->>", "#>", "#>>"))
_JSON_CALLS = frozenset(
    ("jsonb_extract_path", "jsonb_extract_path_text", "json_extract_path", "json_extract_path_text")
)
_NEGATED = {"<>": "=", "!=": "=", "!~~": "~~", "!~~*": "~~*", "!~": "~", "!~*": "~*"}


def opaque(call: Call) -> bool:
    """Whether what the function returns may depend on the session."""
    name = call.name
    return bool(name[0]) and (name[0] not in PURE if len(name) == 1 else name not in PURE_PATHS)


def compare(name: str, left: Node, right: Node, over: str = "") -> Node:
    """``left name right`` in its one spelling: rows pairwise, constants right, negated operators under Not."""
    if over and name in _NEGATED:
        return Not(Op(_NEGATED[name], (left, right), "any" if over == "all" else "all"))
    if over:
        return Op(name, (left, right), over)
    if name in _NEGATED:
        return Not(compare(_NEGATED[name], left, right))
    if name == "=" and isinstance(left, Call) and isinstance(right, Call) and left.name == right.name == ("", "row"):
        pairs = zip(left.args, right.args, strict=False)
        return Junction(True, tuple(compare("=", one, other) for one, other in pairs))
    if name == ">":
        return Op("<", (right, left))
    if name in ("<=", ">="):
        return Not(Op("<", (right, left) if name == "<=" else (left, right)))
    if name in ("=", "is") and isinstance(left, Const) and not isinstance(right, Const):
        return Op(name, (right, left))
    if name == "||" and Const("") in (left, right):
        return left if right == Const("") else right
    return Op(name, (left, right))


def claims(node: Node) -> Iterator[Path]:
    """The longest constant paths read from the session's JWT."""
    path = _claim(node)
    if path:
        yield path
    elif path is None or not isinstance(node, Op | Call):
        for child in children(node):
            yield from claims(child)


def _claim(node: Node) -> Path | None:
    """The path that the node reads from the JWT, () for the document itself, None for anything else."""
    match node:
        case Call(name=("auth", "jwt")):
            return ()
        case Call(name=("current_setting",), args=(Const(value=str(name)), *_)):
            prefix, found, claim = name.partition("request.jwt.claim")
            return None if prefix or not found else () if claim == "s" else tuple(claim.split(".")[1:]) or None
        case Op(args=(base, key)) if node.name in JSON:
            path = _claim(base)
            return None if path is None else path + _keys(key, node.name.startswith("#"))
        case Call(name=("", "[]"), args=(base, _, key)):
            path = _claim(base)
            return None if path is None else path + _keys(key, False)
        case Call(args=(base, *keys)) if node.name[-1] in _JSON_CALLS:
            path = _claim(base)
            return None if path is None else path + tuple(part for key in keys for part in _keys(key, False))
        case Cast() | Coalesce() | Call(name=("", "nullif")):
            return _claim(next(children(node)))
    return None


def _keys(key: Node, several: bool) -> Path:
    if isinstance(key, Cast):
        key = key.arg
    if isinstance(key, Call) and key.name == ("", "array"):
        return tuple(part for item in key.args for part in _keys(item, False))
    if not isinstance(key, Const) or key.value is None:
        return ()
    text = str(key.value)
    return tuple(part.strip().strip('"') for part in text.strip("{}").split(",")) if several else (text,)
