"""The settings that a text reads, told from the text: an expression of the server's, or a function's body."""

from __future__ import annotations

import re
from collections.abc import Iterable

_READ = re.compile(r"\bcurrent_setting\s*\(", re.IGNORECASE)
_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_NAME = re.compile(r"^[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*$")
# What puts literals together and adds nothing: operators, casts, and functions that join.
_JOINING = re.compile(
    r"'(?:[^']|'')*'|::\s*\"?\w+\"?|\|\||[(),\s]|\b(?:pg_catalog\.)?(?:concat|concat_ws|format)\b", re.IGNORECASE
)
_MOST = 12  # literals that are combined


def settings_read(text: str, name: str = "", callers: Iterable[str] = ()) -> list[frozenset[str]]:
    """For each call of current_setting the names that may be meant; none where that cannot be told.

    A name that is put together of literals is told from them. Where it depends on more, the literals that a function of
    that ``name`` is called with in the ``callers``, and those of its own body, are tried.
    """
    found = []
    for call in _READ.finditer(text):
        argument = _first(_brackets(text, call.end()))
        literals = _literals(argument)
        if not _JOINING.sub("", argument):
            found.append(frozenset(_joined(literals)))
            continue
        given = [each for caller in callers for each in _given(caller, name)] if name else []
        more = list(dict.fromkeys([*literals, *given]))
        told = _combined(more) or (_combined(_literals(text)) if name else set())
        found.append(frozenset(told))
    return found


def _joined(literals: list[str]) -> set[str]:
    """What literals make in their order: one after another, or with a separator that is the first of them."""
    if len(literals) == 1:
        return set(literals)
    separated = literals[0].join(literals[1:]), ".".join(x for x in literals if "%" not in x)
    return {name for name in ("".join(literals), *separated) if "." in name and _NAME.match(name)}


def _combined(literals: list[str]) -> set[str]:
    parts = literals[:_MOST]
    pairs = {one + dot + other for one in parts for other in parts if one != other for dot in ("", ".")}
    return {name for name in (*parts, *pairs) if "." in name and _NAME.match(name)}


def _literals(text: str) -> list[str]:
    return [found.replace("''", "'") for found in _LITERAL.findall(text)]


def _given(text: str, name: str) -> list[str]:
    """The literals with which a text calls a function."""
    calls = re.finditer(rf"\b{re.escape(name)}\"?\s*\(", text)
    return [each for call in calls for each in _literals(_brackets(text, call.end()))]


def _brackets(text: str, start: int) -> str:
    """What stands in brackets that open just before."""
    depth, quoted = 1, False
    for position in range(start, len(text)):
        if text[position] == "'":
            quoted = not quoted
        elif not quoted:
            depth += (text[position] == "(") - (text[position] == ")")
            if not depth:
                return text[start:position]
    return text[start:]


def _first(arguments: str) -> str:
    """The first of several arguments."""
    depth, quoted = 0, False
    for position, sign in enumerate(arguments):
        if sign == "'":
            quoted = not quoted
        elif not quoted:
            depth += (sign == "(") - (sign == ")")
            if sign == "," and not depth:
                return arguments[:position]
    return arguments
