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
Trusted: TypeAlias = tuple[tuple[Path, str], ...]


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
# Built-in functions that tell who the session is; every other one only passes its arguments on. What belongs to
# PostgreSQL itself has no schema in the server's text, since the session that asked had an empty search path.
SESSION = _words(
    """current_setting current_user session_user user current_role system_user getpgusername pg_has_role
    has_any_column_privilege has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege
    has_function_privilege has_language_privilege has_parameter_privilege has_schema_privilege
    has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege
    row_security_active inet_client_addr inet_client_port pg_backend_pid pg_my_temp_schema"""
)
# Built-in functions that give different results for different arguments, more or less: what is compared by one of
# them is compared. Cutting, counting and replacing are not among them.
FAITHFUL = _words(
    """lower upper initcap trim btrim ltrim rtrim reverse md5 sha224 sha256 sha384 sha512 digest hmac hashtext
    hashtextextended encode decode convert_to convert_from text uuid varchar bpchar name int2 int4 int8 bool numeric
    float8 quote_ident quote_literal quote_nullable to_json to_jsonb concat concat_ws format textcat uuid_send
    array_append array_prepend array_cat unnest string_to_array array_to_string jsonb_array_elements_text
    jsonb_array_elements timezone normalize"""
)
PURE_PATHS = frozenset((("storage", "foldername"), ("storage", "filename"), ("storage", "extension")))
JSON = frozenset(("->", "->>", "#>", "#>>"))
_JSON_CALLS = frozenset(
    ("jsonb_extract_path", "jsonb_extract_path_text", "json_extract_path", "json_extract_path_text")
)
_NEGATED = {"<>": "=", "!=": "=", "!~~": "~~", "!~~*": "~~*", "!~": "~", "!~*": "~*"}


def opaque(call: Call) -> bool:
    """Whether what the function returns may depend on the session."""
    if not call.name[0]:
        return False
    return call.name[-1] in SESSION if builtin(call) else call.name not in PURE_PATHS


def builtin(call: Call) -> bool:
    """Whether the function is PostgreSQL's own, and no piece of syntax."""
    return bool(call.name[0]) and (len(call.name) == 1 or call.name[0] == "pg_catalog")


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


def common(left: tuple[Arm, ...], right: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """Rows that both sides have: they pass the conditions of both, and their columns are equal, one by one."""
    return tuple(
        Arm(
            one.names | other.names, one.targets,
            one.conditions + other.conditions
            + tuple(compare("=", a, b) for a, b in zip(one.targets, other.targets, strict=False)),
            one.sources + other.sources, False, False,
        )
        for one in left for other in right
    )  # fmt: skip


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
