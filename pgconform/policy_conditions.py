"""What a policy asks, condition by condition: what is worth keeping when it is written anew, and what proves nothing.

Expressions are taken apart and put together by PostgreSQL's own grammar, so that a condition that nobody complained of
stays as it was. Text only: nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgconform.bodies import code
from pgconform.callees import functions_behind
from pgconform.expression_parser import single
from pgconform.expression_tree import AGGREGATES, ExpressionError
from pgconform.expressions import Shape, compares, mentioned, shape
from pgconform.memberships import names
from pgconform.names import qualified, split
from pgconform.people import active
from pgconform.settings_read import settings_read

if TYPE_CHECKING:
    from pgconform.catalog import Catalog, Function, Table
    from pgconform.contract import Contract, Members, TablePromise

# Part of a token that its owner can write: what it says of the tenant proves nothing.
EDITABLE = ("user_metadata", "raw_user_meta_data")
# A body that reads a session, a table, or the clock.
_CHANGING = re.compile(
    r"\b(?:current_setting|auth\s*\.|now\s*\(|current_\w+|session_user|clock_timestamp)"
    r"|(?<!distinct )\b(?:from|join)\s+(?!unnest\b|generate_)[\w\"]+(?!\s*[(\w\".]*\))",
    re.IGNORECASE,
)
_KEEPING = re.compile(r",\s*false\s*\)$|^set\s+session\b", re.IGNORECASE)
_SETTING = re.compile(r"\bset_config\s*\(|\bset\s+session\b", re.IGNORECASE)
# Calls without arguments, and settings that are read.
_ONE_CALL = re.compile(
    r"(\bauth\.\w+\(\)|\bcurrent_setting\('(?:[^']|'')*'(?:::text)?(?:, (?:true|false))?\))|'(?:[^']|'')*'",
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\(\s*select\s+$", re.IGNORECASE)
_ANY = re.compile(r"\b(?:any|all|some)\s*\(\s*$", re.IGNORECASE)
_ALONE = re.compile(r"\s*(?:as\s+\w+\s*)?\)", re.IGNORECASE)


# -- what proves nothing ----------------------------------------------------------------------------------------


def keeps(function: Function) -> str:
    """Why what a function says may outlive the statement that asked; '' where it does not."""
    text = code(function.body)
    if function.volatility == "i" and _CHANGING.search(text):
        return "is called immutable, and reads what changes"
    kept = any(_KEEPING.search(_call(text, found.start())) for found in _SETTING.finditer(text))
    return "keeps what it found for the whole session" if kept else ""


def _call(text: str, start: int) -> str:
    """The call that begins there, up to its closing parenthesis."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0 and text[position] in ");":
            return text[start : position + 1]
    return text[start:]


def untrusted(text: str, seen: Shape, catalog: Catalog, contract: Contract) -> Iterator[str]:
    """What an expression reads of the session that proves nothing; '' for a setting whose name cannot be told."""
    trusted = {contract.claims_setting, *(name for s in contract.sessions.values() for name in s.settings)}
    behind = functions_behind(seen, catalog)
    callers = [text, *(f.body for f in behind)]
    calls = [*settings_read(text), *(read for f in behind for read in settings_read(f.body, f.name, callers))]
    legacy = contract.claims_setting.rstrip("s")  # request.jwt.claim.sub: an older API sets one for each claim
    for read in calls:
        odd = {n for n in read if n not in trusted and n != legacy and not n.startswith(f"{legacy}.")}
        if odd == read:  # of a name that is put together, none that may be meant is trusted
            yield from (f"setting {n}" for n in odd or ("",))
    claimed = {path[0] for path in seen.claims} | {key for key in EDITABLE for f in behind if key in f.body}
    carried = {key for s in contract.sessions.values() for key in s.claims}
    yield from (f"claim {key}" for key in claimed - carried if key in EDITABLE)


def confuses(text: str, promise: TablePromise, contract: Contract, row: str) -> bool:
    """True where the tenant's column is compared with the user's id."""
    if promise.holds != "tenant":
        return False
    users = [tuple(split(name)) for name in contract.user_functions]
    carried = {(key,) for s in contract.sessions.values() for key, value in s.claims.items() if value == "{user}"}
    return compares(text, contract.column_by(promise), users, row, carried)


def _worthless(text: str, promise: TablePromise, contract: Contract, catalog: Catalog, table: Table) -> bool:
    """True for a condition that says nothing of who may: anybody chooses what it reads, it answers another, or it looks
    up its own table, which fails every query (42P17)."""
    seen, row = shape(text, table.name), table.name
    if (table.schema, table.name) in seen.relations and says_whose(text, promise, contract, row):
        return True
    odd = [each for each in untrusted(text, seen, catalog, contract) if each != "setting "]  # of one that can be told
    if odd or confuses(text, promise, contract, row):
        return True
    return any(f.volatility != "i" and keeps(f) for f in functions_behind(seen, catalog))


# -- what is kept -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a policy's expression, '' where that is nothing; the parts that went, and those that prove
    nothing and stay: they do not say whose the row is, so that without them more rows would come through."""

    text: str
    gone: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def kept(text: str, promise: TablePromise, contract: Contract, catalog: Catalog, table: Table) -> Kept:
    """An expression without what proves nothing: what says whose the row is goes, for the tie that takes its place.

    Of conditions of which one will do, those go that prove nothing, whatever they say: that narrows.
    """
    if shape(text, table.name).always_true:
        return Kept("")
    column, gone, odd = contract.column_by(promise), list[str](), list[str]()

    def left(node: Any) -> tuple[str, bool]:
        """The text, and whether it stays for want of better."""
        if node.WhichOneof("node") == "bool_expr" and node.bool_expr.boolop != _operators().NOT_EXPR:
            every = node.bool_expr.boolop == _operators().AND_EXPR
            parts = [part for part in map(left, node.bool_expr.args) if part[0]]
            sound = [each for each, poor in parts if every or not poor]
            gone.extend(each for each, _ in parts if sound and each not in sound)
            texts = sound or [each for each, _ in parts]
            joined = f" {'and' if every else 'or'} ".join(f"({each})" for each in texts)
            return (f"({joined})" if joined else ""), all(poor for _, poor in parts)
        part = spelled(node)
        if not _worthless(part, promise, contract, catalog, table):
            return part, False
        whose = not column or column in shape(part, table.name).columns
        (gone if whose else odd).append(part)
        return ("" if whose else part), not whose

    rest = left(single(text))[0]
    return Kept(rest if gone else text, tuple(gone), tuple(each for each in odd if each not in gone))


def asked_once(text: str, catalog: Catalog) -> str:
    """The expression with its calls of who is there in scalar subqueries, asked once for a statement."""

    def once(found: re.Match[str]) -> str:
        call, ends = found[1], _ALONE.match(text, found.end())
        if not call or (ends and _WRAPPED.search(text, 0, found.start())):
            return found[0]
        if ends and _ANY.search(text, 0, found.start()):  # a bare subquery there would be compared row by row
            called = catalog.functions_named(qualified(*split(call.partition("(")[0])))
            return f"(select {call})::{called[0].returns}" if called else call
        return f"(select {call})"

    return _ONE_CALL.sub(once, text)


def counted(text: str, contract: Contract) -> str:
    """The expression, where each lookup of memberships asks that they count, too: as far as that takes rows away."""
    node = single(text)
    rosters = [tenancy.members for tenancy in contract.tenancies.values() if tenancy.members]
    found = [(select, members) for members in rosters for select in _lookups(node)]
    changed = [_count(select, members) for select, members in reversed(found)]  # what is inside another comes first
    return f"({spelled(node)})" if any(changed) else text


def _lookups(node: Any) -> Iterator[Any]:
    """The subqueries that let less through when they find less: not those under NOT, nor what is counted."""
    kind = node.WhichOneof("node")
    inner: Any = getattr(node, kind) if kind else None
    match kind:
        case "bool_expr" if inner.boolop != _operators().NOT_EXPR:
            for arg in inner.args:
                yield from _lookups(arg)
        case "a_expr" if inner.name and inner.name[-1].string.sval in ("=", "&&", "@>"):
            yield from _lookups(inner.lexpr)
            yield from _lookups(inner.rexpr)
        case "type_cast":
            yield from _lookups(inner.arg)
        case "sub_link" if _operators().SubLinkType.Name(inner.sub_link_type) != "ALL_SUBLINK":
            if not inner.oper_name or inner.oper_name[-1].string.sval == "=":
                yield from _selects(inner.subselect.select_stmt)


def _selects(select: Any) -> Iterator[Any]:
    if select.op != _operators().SETOP_NONE:
        yield from _selects(select.larg)
        if select.op != _operators().SETOP_EXCEPT:
            yield from _selects(select.rarg)
    elif not (select.group_clause or select.HasField("having_clause") or _aggregates(select)):
        yield select
        yield from _lookups(select.where_clause)
        for item in select.from_clause:
            if item.WhichOneof("node") == "range_subselect":
                yield from _selects(item.range_subselect.subquery.select_stmt)


def _aggregates(select: Any) -> bool:
    """Whether what comes out may be there where nothing is found."""
    targets = " ".join(spelled(target.res_target.val) for target in select.target_list)
    return any(re.search(rf"\b{each}\s*\(", targets, re.IGNORECASE) for each in AGGREGATES)


def _count(select: Any, members: Members) -> bool:
    """Adds to a lookup what says that a membership counts, where it does not ask; whether anything was added."""
    wanted = [column for column in (members.active, members.expires) if column]
    found = [alias for item in select.from_clause for alias in _aliases(item, members)]
    there = _spelled_select(select)
    if not found or all(names([there], column) for column in wanted):
        return False
    asked = [f"({spelled(select.where_clause)})"] if select.HasField("where_clause") else []
    asked += [f"({active(members, alias)})" for alias in found]
    select.where_clause.CopyFrom(single(" and ".join(asked)))
    return True


def _aliases(item: Any, members: Members) -> Iterator[str]:
    """What a FROM item calls the members' table; an outer join finds rows where that has none."""
    kind = item.WhichOneof("node")
    if kind == "range_var" and (item.range_var.schemaname, item.range_var.relname) == tuple(split(members.table)):
        yield item.range_var.alias.aliasname or item.range_var.relname
    elif kind == "join_expr" and item.join_expr.jointype == _operators().JOIN_INNER:
        yield from _aliases(item.join_expr.larg, members)
        yield from _aliases(item.join_expr.rarg, members)


def _operators() -> Any:
    return import_module("postgast.pg_query_pb2")


def spelled(node: Any) -> str:
    """The text of one expression's tree."""
    tree = import_module("postgast").parse("select 1")
    tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val.CopyFrom(node)
    return _deparsed(tree).partition(" ")[2]


def _spelled_select(select: Any) -> str:
    tree = import_module("postgast").parse("select 1")
    tree.stmts[0].stmt.select_stmt.CopyFrom(select)
    return _deparsed(tree)


def _deparsed(tree: Any) -> str:
    postgast = import_module("postgast")
    try:
        return str(postgast.deparse(tree))
    except postgast.PgQueryError as error:
        raise ExpressionError(f"expression cannot be written anew: {error}") from None


# -- conditions of its own --------------------------------------------------------------------------------------


def says_whose(text: str, promise: TablePromise, contract: Contract, row: str) -> bool:
    """True where an expression asks nothing but whose the row is: no state of the row, no rank of the caller, nothing
    that a function of somebody's or another table tells. What is always or never true asks nothing either."""
    seen = shape(text, row)
    if seen.always_true or seen.always_false:
        return True
    rosters = [tenancy.members for tenancy in contract.tenancies.values() if tenancy.members]
    registries = [tenancy.registry for tenancy in contract.tenancies.values() if tenancy.registry]
    columns = {contract.column_by(promise), promise.parent_key}
    columns |= {c for m in rosters for c in (m.tenant, m.user, m.active, m.expires)}
    columns |= {c for r in registries for c in (r.key, r.active)}
    relations = {m.table for m in rosters} | {r.table for r in registries} | {promise.parent}
    functions = {tuple(split(name)) for name in contract.user_functions} | {("auth", "uid"), ("auth", "jwt")}
    claims = {key for s in contract.sessions.values() for key, value in s.claims.items() if "{" in str(value)}
    return (
        mentioned(text, row) <= columns
        and {qualified(*path) for path in seen.relations} <= relations
        and all(len(path) == 1 or path in functions for path in seen.functions)
        and all(path[0] in claims for path in seen.claims)
    )
