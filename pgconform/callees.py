"""The functions behind an expression. What a function does is text: bodies in any language are searched for calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from pgconform.bodies import uncommented
from pgconform.catalog import Catalog, Function
from pgconform.expressions import Shape
from pgconform.names import quote, split

_CALLS = re.compile(r'((?:"(?:[^"]|"")+"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[\w$]+))*)\s*\(')


def functions_behind(seen: Shape, catalog: Catalog) -> list[Function]:
    """The functions that an expression calls, and those that their bodies call, however deep; none of extensions."""
    return _reached([".".join(map(quote, path)) for path in seen.functions], catalog)


def functions_called(function: Function, catalog: Catalog) -> list[Function]:
    """The functions that a body calls, however deep; none of extensions."""
    return called_in(function.body, catalog)


def called_in(text: str, catalog: Catalog) -> list[Function]:
    """The functions that any text calls, however deep; none of extensions."""
    return _reached(_calls(text), catalog)


@lru_cache(maxsize=4096)
def _calls(body: str) -> tuple[str, ...]:
    """What a body calls; policies of thousands of tables lead to the same few functions."""
    return tuple(_CALLS.findall(uncommented(body)))


def _reached(names: Iterable[str], catalog: Catalog) -> list[Function]:
    found: dict[str, Function] = {}
    pending = list(names)
    while pending:
        for each in _called(pending.pop(), catalog):
            if each.signature not in found and not each.extension:
                found[each.signature] = each
                pending += _calls(each.body)
    return list(found.values())


def _called(text: str, catalog: Catalog) -> list[Function]:
    """The functions that a name in a body may mean; without a schema those of any schema."""
    parts = split(text)
    named = catalog.functions_named(".".join(map(quote, parts)))
    return [f for f in named or catalog.functions if f.name == parts[-1] and (named or len(parts) == 1)]
