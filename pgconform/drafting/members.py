"""Which memberships count, and which rank administers: told by what policies ask of the members, and by names."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from pgconform.catalog import Table
from pgconform.drafting.seen import Seen, aliases, spelled
from pgconform.drafting.tables import values
from pgconform.drafting.tenancy import Members

_STANDING = re.compile(r"(^|[\W_])(status|state|standing)$", re.I)
_ROLE = ("role", "member_role", "rank")
_ADMINS = ("owner", "admin", "administrator")  # the first that there is
_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_CAST = re.compile(rf"::\s*(?:character varying|(?:{_NAME}\.)?{_NAME})(?:\(\d+\))?(?:\[\])?", re.I)
_LITERAL = r"'(?:[^']|'')*'"
_LITERALS = rf"[\s)]*(=\s*any|<>\s*all|(?:not\s+)?in|=|<>|!=)[\s(]*(?:array\s*\[)?\s*({_LITERAL}(?:\s*,\s*{_LITERAL})*)"


def told(seen: Seen, members: Members) -> tuple[dict[str, Any], list[str]]:
    """The keys of a contract's members besides user and tenant, and why they are guessed so."""
    item: dict[str, Any] = {}
    why = [members.why]
    if members.active:
        item["active"] = members.active
    elif standing := _standing(seen, members.table):
        item["active"], item["active_values"], asking = standing
        why.append(f"active: guess: so {asking} tells members from others")
    if members.expires:
        item["expires"] = members.expires
    for column, listed in _roles(seen, members.table):
        item |= {"role": column, "roles": listed}
        named = {role.lower(): role for role in reversed(listed)}
        if admins := [named[role] for role in _ADMINS if role in named]:
            item["admin"] = admins[0]
            others = f", as well as {', '.join(admins[1:])}" if admins[1:] else ""
            why.append(f"admin: guess: {admins[0]} is called so{others}; each tenant has to have one")
    if members.users:
        item["users"] = members.users
    return item, why


def _roles(seen: Seen, table: Table) -> list[tuple[str, list[str]]]:
    """The column with a member's role, where a check constraint or its type lists the values."""
    listed = _listed(seen, table)
    called = [*_ROLE, *(name for name in listed if name.endswith("_role"))]
    return [(name, listed[name]) for name in called if name in listed][:1]


def _listed(seen: Seen, table: Table) -> dict[str, list[str]]:
    """The values that columns may have, where anything lists them."""
    labels = {kind.oid: list(kind.labels) for kind in seen.catalog.types if kind.labels}
    return {c.name: labels[c.base_oid] for c in table.columns if c.base_oid in labels} | values(table)[0]


def _standing(seen: Seen, table: Table) -> tuple[str, list[str], str] | None:
    """The column that says whether a membership counts, with which values, and who asks so; what most ask."""
    listed, found = _listed(seen, table), Counter[tuple[str, tuple[str, ...]]]()
    asking: dict[tuple[str, tuple[str, ...]], str] = {}
    for (who, text), often in seen.asking(table).items():
        for column in (c.name for c in table.columns if _STANDING.search(c.name)):
            for accepted in _accepted(_CAST.sub("", text), table, column, listed.get(column, [])):
                found[column, accepted] += often
                asking.setdefault((column, accepted), who)
    for (column, accepted), _ in found.most_common(1):
        return column, list(accepted), asking[column, accepted]
    return None


def _accepted(text: str, table: Table, column: str, listed: list[str]) -> list[tuple[str, ...]]:
    """The values of the column that each comparison in the text lets through."""
    of = aliases(text, table)
    found = []
    for match in re.finditer(
        rf"(?<![\w$.\"])(?:({_NAME})\s*\.\s*)?{spelled(column)}(?![\w$\"]){_LITERALS}", text, re.I
    ):
        owner = match[1] or ""
        if owner and (owner if owner.startswith('"') else owner.lower()) not in of:
            continue
        named = [item[1:-1].replace("''", "'") for item in re.findall(_LITERAL, match[3])]
        if re.match(r"not|<>|!=", match[2], re.I):
            named = [value for value in listed if value not in named]
        if named:
            found.append(tuple(named))
    return found
