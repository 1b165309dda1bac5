"""Lookups of memberships in functions behind policies: whether anything there asks that a membership counts.

Bodies are searched, not parsed: whatever names the column anywhere, in a body, in what that calls or in a view that it
names, is taken to ask. Runs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgconform.bodies import code, uncommented
from pgconform.callees import called_in
from pgconform.expressions import calls_alone, shape
from pgconform.names import qualified, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgconform.catalog import Catalog, Function, Table
    from pgconform.contract import Members


def names(texts: Iterable[str], name: str) -> bool:
    """True where one of the texts has the name in it."""
    word = re.compile(rf"(?<![\w$]){re.escape(name)}(?![\w$])", re.IGNORECASE)
    return any(word.search(text) for text in texts)


def said(texts: Iterable[str], catalog: Catalog) -> list[str]:
    """The texts without comments, and those of all functions that they call and views that they name, however deep."""
    found = dict.fromkeys(map(uncommented, texts))
    if not found:
        return []
    views = {table.name: table.definition for table in catalog.tables if table.definition}
    pending = list(found)
    while pending:
        text = pending.pop()
        behind = [uncommented(function.body) for function in called_in(text, catalog)]
        behind += [definition for name, definition in views.items() if name in text and names([text], name)]
        pending += [each for each in behind if each not in found]
        found |= dict.fromkeys(behind)
    return list(found)


def forgetful(text: str, row: str, members: Members, column: str, catalog: Catalog) -> list[Function]:
    """The functions behind an expression, however deep, that look memberships up where nothing asks for the column."""
    seen, there = shape(text, row), catalog.table(members.table)
    called = {path: catalog.functions_named(qualified(*path)) for path in sorted(seen.functions)}
    behind = {path: _reached(some, catalog) for path, some in called.items()}
    if there is None or not any(_looks_up(f, members) for some in behind.values() for f in some):
        return []
    views = [t.definition for path in seen.relations if (t := catalog.table(qualified(*path))) and t.definition]
    if names(said(views, catalog), column):
        return []
    asking = [path for path, some in called.items() if names(said([f.body for f in some], catalog), column)]
    alone = calls_alone(text, column, asking, row)
    passed = names(said([f"{p.using} {p.check}" for p in there.policies], catalog), column)
    reached = {f.signature: f for path in behind if path in alone for f in behind[path] if _looks_up(f, members)}
    return [f for f in reached.values() if not (passed and _guarded(f, there, catalog))]


def _reached(called: Iterable[Function], catalog: Catalog) -> list[Function]:
    own = [function for function in called if not function.extension]
    return [*own, *(f for each in own for f in called_in(uncommented(each.body), catalog))]


def _looks_up(function: Function, members: Members) -> bool:
    """True where the body reads the members' table, and names the column of the user."""
    schema, table = map(_spelt, split(members.table))
    path = function.configuration.get("search_path")
    bare = path is None or names([path], split(members.table)[0])
    read = rf"{schema}\s*\.\s*{table}" + (rf"|\b(?:from|join)\s+(?:only\s+)?{table}(?!\s*[.(])" if bare else "")
    text = code(function.body)
    return bool(re.search(read, text, re.IGNORECASE)) and names([text], members.user)


def _spelt(name: str) -> str:
    quoted = re.escape('"' + name.replace('"', '""') + '"')
    return rf'(?:{quoted}|(?<![\w$"]){re.escape(name)}(?![\w$"]))'


def _guarded(function: Function, table: Table, catalog: Catalog) -> bool:
    """True where what a function reads of a table passes the table's policies."""
    if not table.row_security or not function.security_definer:
        return table.row_security
    owner = catalog.role(function.owner)
    outside = owner is None or owner.superuser or owner.bypass_row_security
    return not outside and (table.forced or function.owner != table.owner)
