"""How a problem of a contract file is said: the place in TOML's own spelling, what was wanted, the nearest word.

Whatever the file holds comes out as one printable line of reasonable length; values are echoed only where a
fixed set of words is accepted, since one may be a secret.
"""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]

_LONGEST = 200  # characters of one word
_SHOWN = 30  # words of a list
_WORDS = {
    str: "text", bool: "true or false", int: "an integer", float: "a number", list: "a list", dict: "a table",
    datetime.date: "a date such as 2030-12-31", Any: "text, a number, true or false, a list or a table",
}  # fmt: skip


def unwrap(kind: Any) -> tuple[Any, list[msgspec.Meta]]:
    """The type without its annotations, and those."""
    if get_origin(kind) is Annotated:
        return get_args(kind)[0], [item for item in kind.__metadata__ if isinstance(item, msgspec.Meta)]
    return kind, []


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union, without None, which TOML cannot say."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(option for option in get_args(kind) if option is not type(None))
    return (kind,)


def called(kind: Any) -> str:
    """The kind of value in the words of TOML."""
    base, _ = unwrap(kind)
    origin = get_origin(base) or base
    if origin is Literal:
        return "one of " + ", ".join(f"'{item}'" for item in get_args(base))
    if origin is tuple:
        arguments = get_args(base)
        return "a list" if arguments[-1] is ... else f"a list of {len(arguments)} numbers"
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return "a table"
    return _WORDS.get(origin, "another kind of value")


def wanted(kind: Any) -> str:
    """What a value of the type has to be, bounds included."""
    words = []
    for option in alternatives(kind):
        text = called(option)
        for meta in unwrap(option)[1]:
            text += _bounds(meta)
            if meta.min_length:
                text += " that is not empty"
            if meta.pattern:
                text += f" that matches {meta.pattern}"
        words.append(text)
    return " or ".join(words)


def _bounds(meta: msgspec.Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    words = {"of at least": meta.ge, "above": meta.gt, "of at most": meta.le, "below": meta.lt}
    return "".join(f" {word} {bound}" for word, bound in words.items() if bound is not None)


def unfit(value: Any, kind: Any) -> str:
    """Why the value does not fit the type; the value itself only where a set of words is accepted."""
    for option in alternatives(kind):
        accepted = get_args(unwrap(option)[0])
        if get_origin(unwrap(option)[0]) is Literal and isinstance(value, str):
            return f"wanted {wanted(kind)}, found '{one_line(value)}'{hint(value, accepted)}"
    found = "a date or time" if isinstance(value, datetime.date | datetime.time) else called(type(value))
    if found in wanted(kind) or (type(value) is int and "a number" in wanted(kind)):
        return f"wanted {wanted(kind)}"  # the right kind, but out of bounds
    return f"wanted {wanted(kind)}, found {found}{_keys(kind)}"


def _keys(kind: Any) -> str:
    """The keys of the table, or of each table of the list, that the type is; '' where it is none."""
    for option in alternatives(kind):
        base, of = unwrap(option)[0], ""
        if get_origin(base) is tuple and get_args(base)[-1] is ...:
            base, of = unwrap(get_args(base)[0])[0], " of each item, a table"
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            return f"; accepted keys{of}: {', '.join(field.name for field in msgspec.structs.fields(base))}"
    return ""


def strange(value: Any) -> str:
    """Why neither PostgreSQL nor JSON could hold a value that TOML can; '' where they could."""
    if isinstance(value, str) and "\0" in value:
        return "wanted text without the character U+0000"
    if isinstance(value, float) and not math.isfinite(value):
        return "wanted a finite number"
    if isinstance(value, list):
        return next(filter(None, map(strange, value)), "")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "wanted a number of at most 64 bits"
    return ""


def hint(word: str, accepted: Iterable[str]) -> str:
    """The nearest of the accepted words, as a question; '' where none is near."""
    by_lower = {item.lower(): item for item in accepted}
    near = difflib.get_close_matches(word.lower()[:100], by_lower, n=1)
    return f"; did you mean '{one_line(by_lower[near[0]])}'?" if near else ""


def choice(word: str, accepted: Iterable[str], title: str = "accepted") -> str:
    """What to write instead of a word that is not accepted; never the word itself."""
    words = list(accepted)
    more = ", ..." if len(words) > _SHOWN else ""
    return f"{title}: {', '.join(map(one_line, words[:_SHOWN])) or 'none'}{more}{hint(word, words)}"


def one_line(text: str) -> str:
    """The text in one printable line of reasonable length."""
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def spelled(part: str | int) -> str:
    """A key as TOML has it; a place in a list as its number."""
    if isinstance(part, int):
        return f"#{part + 1}"
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", part) and len(part) <= _LONGEST
    return part if bare else one_line(json.dumps(part, ensure_ascii=False))


def place(path: KeyPath) -> str:
    """Section and key: ``[tables."a.b"] column``, ``[[waivers]] #2 until``, ``[roles] clients #1``."""
    last = max((n for n, part in enumerate(path) if isinstance(part, str)), default=0)
    section, key = path[:last], " ".join(map(spelled, path[last:]))
    if not section:
        return key
    if isinstance(section[-1], int):
        return f"[[{'.'.join(map(spelled, section[:-1]))}]] {spelled(section[-1])} {key}"
    return f"[{'.'.join(map(spelled, section))}] {key}"
