"""What each relation holds, who reaches it, what it refers to, and what its constraints already say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pgconform.catalog import Column, Table
from pgconform.contract import COMMANDS
from pgconform.drafting.roles import Roles
from pgconform.drafting.seen import Seen
from pgconform.drafting.tenancy import Guess
from pgconform.names import quote

_NUMBER = re.compile(r"^(chunk|part|segment|passage)_?(index|number|no|num|id|order|position)$|^chunk$", re.I)
_TOTAL = re.compile(
    r"^(total|num(ber)?(_of)?|n)_?(chunks|parts|segments|passages)$|^(chunk|part|segment)_?(count|total)s?$", re.I
)
_UNIT = re.compile(
    r"^(source_?file|document_?(id|key)?|doc_?id|file(_?(id|name|path))?|source_?(id|url)?|url|parent_?id)$", re.I
)
_WHOLE = ("integer", "bigint", "smallint")
_LISTED = r"CHECK \(+{column}\)?(?:::text)? = ANY \(\(?ARRAY\[(.*?)\](?:\)?::text\[\])?\)+"
_ITEM = re.compile(r"'((?:[^']|'')*)'::(?:text|character varying)(?:::text)?(?:, )?")
_LEAST = re.compile(r"\(*\b([a-z_][a-z0-9_]*) >= \(?'?(-?\d+(?:\.\d+)?)'?\)?(?:::[\w ]+)?\)*")


@dataclass(frozen=True)
class Whose:
    """Whose rows a relation holds: a contract's ``holds``, ``column``, ``parent``, and why."""

    holds: str
    column: str = ""
    parent: str = ""
    parent_key: str = "id"
    tenancy: str = ""
    why: str = ""


def declared(seen: Seen, roles: Roles, tenancies: list[Guess]) -> list[Table]:
    """Relations that a contract has to speak of: reached by clients, with a tenant's column, or with vectors."""
    shown = exposed(seen, roles)
    tied = {name for guess in tenancies for name in guess.tables}
    tied |= {str(guess.registry) for guess in tenancies if guess.registry}
    tied |= {str(guess.members[0].table) for guess in tenancies if guess.members}
    found = []
    for table in seen.catalog.tables:
        if table.extension or seen.is_part(table):
            continue
        reached = any(seen.privileges.reaches(role, table) for role in roles.clients)
        vectors = any(column.base_oid in seen.catalog.vector_types for column in table.columns)
        if reached or str(table) in tied or (table.stores_rows and (vectors or table.schema in shown)):
            found.append(table)
    return found


def exposed(seen: Seen, roles: Roles) -> list[str]:
    """Schemas in which a client reaches a relation; ``public`` where there is none."""
    found = {t.schema for t in seen.catalog.tables if not t.extension for r in roles.clients
             if seen.privileges.reaches(r, t)}  # fmt: skip
    public = (
        f for f in seen.catalog.functions if f.schema == "public" and not f.extension and "trigger" not in f.returns
    )
    if any(seen.privileges.may(role, "EXECUTE", function) for function in public for role in roles.clients):
        found.add("public")  # what can be called there is offered, too
    return sorted(found, key=lambda name: (name != "public", name)) or ["public"]


def whose(seen: Seen, roles: Roles, tenancies: list[Guess], tables: list[Table]) -> dict[str, Whose]:
    """Whose each relation is."""
    found = {str(table): _whose(seen, roles, tenancies, table) for table in tables}
    before: dict[str, Whose] = {}
    while before != found:  # children of those whose rows are somebody's, then theirs
        before = dict(found)
        for table in tables:
            if found[str(table)].holds in ("shared", "service") and (child := _child(seen, table, before)):
                found[str(table)] = child
    return found


def _whose(seen: Seen, roles: Roles, tenancies: list[Guess], table: Table) -> Whose:
    several = len(tenancies) > 1
    by_user = [c.name for c in table.columns if seen.by_user(table, c.name)]
    for guess in tenancies:
        tenancy = guess.name if several else ""
        if guess.registry == table:
            column = guess.key if guess.key != guess.column else ""
            return Whose("tenant", column, tenancy=tenancy, why="the registry: a row belongs to the tenant that it is")
        members = guess.members[0] if guess.members else None
        if members and members.table == table and (by_user or not seen.readers(table)):
            return Whose("user", members.user, tenancy=tenancy, why="the members: a user sees the own memberships")
    for guess in tenancies:
        if table.column(guess.column) and not (by_user and guess.column not in seen.tied.get(str(table), ())):
            return Whose("tenant", tenancy=guess.name if several else "")
    if by_user and tenancies:
        return Whose("user", by_user[0], tenancy=tenancies[0].name if several else "",
                     why=f"guess: its policies compare {by_user[0]} with the user who calls")  # fmt: skip
    if any(seen.privileges.reaches(role, table) for role in roles.clients):
        return Whose("shared", why="guess: clients reach it, and no column says whose a row is")
    return Whose("service", why="guess: no client reaches it")


def _child(seen: Seen, table: Table, found: dict[str, Whose]) -> Whose | None:
    """It belongs to whom its parent belongs to: by a foreign key of one column that its policies look at, that is never
    null, or that deletes it with its parent; else by the only one. Taken for shared, leaking it would be right."""
    tied = seen.tied.get(str(table), frozenset())
    keys = [c for c in table.foreign_keys()
            if len(c.columns) == 1 and found.get(c.references, Whose("")).holds in ("tenant", "child")]  # fmt: skip
    for constraint in sorted(keys, key=lambda c: (c.columns[0] not in tied, c.on_delete != "cascade")):
        column = table.column(constraint.columns[0])
        sure = constraint.on_delete == "cascade" or len(keys) == 1
        if column and (column.not_null or column.name in tied or sure):
            parent = found[constraint.references]
            return Whose("child", column.name, constraint.references, constraint.referenced_columns[0], parent.tenancy,
                         f"guess: a row refers to one of {constraint.references} and names no tenant")  # fmt: skip
    return None


def access(seen: Seen, roles: Roles, table: Table, holds: str, tenant: str = "") -> dict[str, Any]:
    """Whose rows each role may touch, as grants and policies let it today: what only one of them allows is excess.

    Where rows are users' and policies look at the column with their ``tenant``, those of the team may be touched, too.
    """
    found: dict[str, Any] = {}
    for role in (*roles.clients, *roles.services):
        scope = "all" if role in roles.services else "own" if holds in ("tenant", "user", "child") else "shared"
        held = seen.privileges.on(role, table) if seen.privileges.reaches(role, table) else ()
        granted = {item.privilege.lower() for item in held}
        passed = COMMANDS if role in roles.services else _let_through(seen, role, table)
        commands = [command for command in COMMANDS if command in granted and command in passed]
        told = {c: "team" if scope == "own" and tenant and _by(table, c, tenant) else scope for c in commands}
        if told:
            same = len(told) == len(COMMANDS) and len({*told.values()}) == 1
            found[role] = next(iter(told.values())) if same else told
    return found


def _by(table: Table, command: str, column: str) -> bool:
    """True where a policy for that command looks at the column."""
    policies = [p for p in table.policies if p.permissive and p.command in ("ALL", command.upper())]
    name = re.compile(rf"(?<![\w$\"]){re.escape(quote(column))}(?![\w$\"])")
    return any(name.search(text) for policy in policies for text in (policy.using, policy.check) if text)


def _let_through(seen: Seen, role: str, table: Table) -> tuple[str, ...]:
    """The commands by which row security lets the role reach any row."""
    if table.kind not in ("table", "partitioned") or not table.row_security:
        return COMMANDS
    named = {"public", *seen.privileges.inherited(role)}
    told = {p.command.lower() for p in table.policies if p.permissive and not named.isdisjoint(p.roles)}
    return COMMANDS if "all" in told else tuple(command for command in COMMANDS if command in told)


def by_column(seen: Seen, roles: Roles, table: Table) -> dict[str, Any]:
    """Commands that a role may use on some columns only, as they are granted today."""
    found: dict[str, dict[str, list[str]]] = {}
    for role in (*roles.clients, *roles.services):
        held = seen.privileges.on(role, table)
        whole = {item.privilege for item in held if not item.column}
        passed = COMMANDS if role in roles.services else _let_through(seen, role, table)
        for item in held:
            if item.column and item.privilege not in whole and item.privilege.lower() in {*passed} - {"delete"}:
                columns = found.setdefault(role, {}).setdefault(item.privilege.lower(), [])
                columns += [item.column] * (item.column not in columns)
    return found


def references(seen: Seen, table: Table) -> list[tuple[dict[str, Any], str]]:
    """Foreign keys as they are; then, off, columns that are named and typed like another table's key."""
    found: list[tuple[dict[str, Any], str]] = []
    for key in table.foreign_keys():
        if not key.inherited:
            found.append((_reference(key.columns, key.references, key.referenced_columns, on_delete=key.on_delete), ""))
    taken = {column for key in table.foreign_keys() for column in key.columns}
    for column in table.columns:
        if (
            column.name not in taken
            and column.name not in table.primary_key
            and (target := _target(seen, table, column))
        ):
            other, to = target
            why = f"off:guess: named and typed like the key of {other}, without a foreign key"
            found.append((_reference((column.name,), str(other), (to,), declared=False), why))
    return found


def _reference(columns: tuple[str, ...], table: str, to: tuple[str, ...], **more: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"columns": columns, "table": table}
    if to != ("id",):
        item["to"] = to
    return item | {name: value for name, value in more.items() if value != ""}


def _target(seen: Seen, table: Table, column: Column) -> tuple[Table, str] | None:
    stem = re.sub(r"_(id|uuid)$", "", column.name)
    if stem == column.name:
        return None
    names = (stem, f"{stem}s", f"{stem}es", re.sub(r"y$", "ies", stem))
    for other in (each for name in dict.fromkeys(names) for each in seen.named.get(name, ())):
        own = other.column(other.primary_key[0]) if len(other.primary_key) == 1 else None
        if other is not table and own and own.type == column.type:
            return other, own.name
    return None


def unique(table: Table) -> list[tuple[str, ...]]:
    """Unique keys besides the primary key."""
    return sorted({tuple(c.columns) for c in table.constraints if c.kind == "u"})


def chunks(table: Table, tenants: set[str]) -> tuple[dict[str, Any], str] | None:
    """How the rows of one text are numbered, and why; the unit from a unique key, else from a column's name."""
    number = _called(table, _NUMBER)
    total = _called(table, _TOTAL)
    if not number or not total:
        return None
    keys = [key for key in [*unique(table), table.primary_key] if number in key]
    unit = [c for key in keys[:1] for c in key if c != number and c not in tenants]
    why = f"guess: by the names of {number} and {total}"
    why += "; the rest of their unique key says which text it is" if unit else "; the unit is called like one"
    unit = unit or [c.name for c in table.columns if _UNIT.match(c.name)][:1]
    return ({"unit": unit, "number": number, "total": total}, why) if unit else None


def _called(table: Table, pattern: re.Pattern[str]) -> str:
    return next((c.name for c in table.columns if c.type in _WHOLE and pattern.match(c.name)), "")


def values(table: Table) -> tuple[dict[str, list[str]], dict[str, float]]:
    """What check constraints already say: the listed values of a column, and the least that it may be."""
    listed: dict[str, list[str]] = {}
    least: dict[str, float] = {}
    for constraint in (c for c in table.constraints if c.kind == "c" and len(c.columns) == 1):
        (column,), text = constraint.columns, constraint.definition
        if match := re.fullmatch(_LISTED.format(column=re.escape(quote(column))), text, re.S):
            items = [item.replace("''", "'") for item in _ITEM.findall(match[1])]
            if items and "".join(m[0] for m in _ITEM.finditer(match[1])) == match[1]:
                listed[column] = items
        elif " OR " not in text:
            for name, bound in _LEAST.findall(text):
                if name == column:
                    least[name] = float(bound) if "." in bound else int(bound)
    return listed, least
