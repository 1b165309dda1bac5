"""Named parameters, such as ``:query``, in SQL that others wrote. Text alone: it never talks to a server."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What is no parameter comes first: strings, names, comments, casts.
_TOKENS = re.compile(
    r"""[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | \$(\w*)\$.*?\$\1\$ | ::
      | (?<!\w):(?P<name>[A-Za-z_]\w*) | (?P<number>\$\d+)""",
    re.VERBOSE | re.DOTALL,
)


def pieces(sql: str) -> Iterator[tuple[str, str]]:
    """The text in parts, each with the name of the parameter after it; '' after the last. ``$1`` is a name, too."""
    start = 0
    for token in _TOKENS.finditer(sql):
        if name := token["name"] or token["number"]:
            yield sql[start : token.start()], name
            start = token.end()
    yield sql[start:], ""


def named(sql: str) -> list[str]:
    """The parameters in the text, each once, in their order."""
    return list(dict.fromkeys(name for _, name in pieces(sql) if name))
