"""Writes the TOML of a draft: any name and text survives, and a comment never breaks out of its line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pgconform.contract_words import one_line

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def key(name: str) -> str:
    """The key as TOML has it: bare where it can be."""
    return name if _BARE.match(name) else text(name)


def text(value: str) -> str:
    """A basic string of TOML 1.0: what JSON escapes, and DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def value(given: Any) -> str:
    """The value in one line of TOML. Raises TypeError for what a contract cannot hold."""
    match given:
        case bool():
            return "true" if given else "false"
        case int() | float():
            return repr(given)
        case str():
            return text(given)
        case Mapping():
            inside = ", ".join(f"{key(name)} = {value(item)}" for name, item in given.items())
            return f"{{ {inside} }}" if inside else "{}"
        case Sequence():
            return f"[{', '.join(map(value, given))}]"
    raise TypeError(type(given).__name__)


class Page:
    """The lines of a contract; ``off`` writes a line as a comment, for the reader to switch on."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, *comments: str) -> None:
        """Comments, a line each."""
        self.lines += [f"# {one_line(comment)}" for comment in comments if comment]

    def section(self, *path: str, why: str = "") -> None:
        """The header of a table of the file, after an empty line."""
        self.lines.append("")
        self.say(why)
        self.lines.append(f"[{'.'.join(map(key, path))}]")

    def put(self, name: str, given: Any, why: str = "", off: bool = False) -> None:
        """A key with its value; the reason stands above it."""
        self.say(why)
        self.lines.append(f"{'# ' if off else ''}{key(name)} = {value(given)}")

    def rows(self, name: str, given: Sequence[tuple[Any, str]]) -> None:
        """A list, an item a line, each followed by its reason; an item whose reason begins with ``off:`` is a
        comment."""
        self.lines.append(f"{key(name)} = [")
        for item, why in given:
            off, reason = ("# ", why[4:]) if why.startswith("off:") else ("", why)
            self.lines.append(f"  {off}{value(item)}," + (f"  # {_whole(reason)}" if reason else ""))
        self.lines.append("]")

    def __str__(self) -> str:
        return "\n".join(self.lines).strip("\n") + "\n"


def _whole(reason: str) -> str:
    return one_line(reason.strip())
