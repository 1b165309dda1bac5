"""Access control lists as the catalogues store them, decoded: ``role=privileges/grantor``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pgconform.catalog import PUBLIC, Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

# PostgreSQL manual, "Privileges", table "ACL Privilege Abbreviations".
LETTERS = {
    "r": "SELECT", "w": "UPDATE", "a": "INSERT", "d": "DELETE", "D": "TRUNCATE", "x": "REFERENCES", "t": "TRIGGER",
    "m": "MAINTAIN", "X": "EXECUTE", "U": "USAGE", "C": "CREATE", "c": "CONNECT", "T": "TEMPORARY", "s": "SET",
    "A": "ALTER SYSTEM",
}  # fmt: skip
# What the owner has, and what PUBLIC has, where the ACL is null; by kind of object. MAINTAIN exists from 17 on.
_OWNER = {
    "r": "arwdDxtm", "S": "rwU", "f": "X", "n": "UC", "T": "U", "L": "rw", "d": "CTc", "l": "U",
    "p": "sA", "c": "",
}  # fmt: skip
_PUBLIC = {"f": "X", "T": "U", "l": "U", "d": "Tc"}


def decode(items: Sequence[str] | None, kind: str, owner: str, maintain: bool = True) -> tuple[Grant, ...]:
    """The grants of one object; the built-in default where the catalogue has none.

    ``kind``: r relation, S sequence, f function, n schema, T type, L large object, d database, l language,
    p parameter, c column. ``maintain`` says whether the server knows MAINTAIN, as it does from 17 on.
    """
    if items is None:
        return _default(kind, owner, maintain)
    return _decoded(tuple(items))


@lru_cache(maxsize=4096)
def _default(kind: str, owner: str, maintain: bool) -> tuple[Grant, ...]:
    letters = _OWNER[kind] if maintain else _OWNER[kind].replace("m", "")
    everybody = [Grant(PUBLIC, LETTERS[letter], owner) for letter in _PUBLIC.get(kind, "")]
    return (*everybody, *(Grant(owner, LETTERS[letter], owner) for letter in letters))


@lru_cache(maxsize=65536)
def _decoded(items: tuple[str, ...]) -> tuple[Grant, ...]:
    return tuple(grant for item in items for grant in _item(item))


def _item(item: str) -> list[Grant]:
    grantee, rest = _role(item, 0)
    position = rest + 1  # the equals sign
    found: list[tuple[str, bool]] = []
    while position < len(item) and item[position] != "/":
        if item[position] == "*":
            found[-1] = (found[-1][0], True)
        else:
            found.append((LETTERS.get(item[position], f"UNKNOWN {item[position]}"), False))
        position += 1
    grantor, _ = _role(item, position + 1)
    return [Grant(grantee or PUBLIC, privilege, grantor, grantable) for privilege, grantable in found]


def _role(text: str, start: int) -> tuple[str, int]:
    """A role's name, quoted where it is not plain (putid in acl.c), and where it ends."""
    out: list[str] = []
    position, quoted = start, False
    while position < len(text):
        character = text[position]
        if character == '"':
            if quoted and text[position + 1 : position + 2] == '"':
                out.append('"')
                position += 1
            else:
                quoted = not quoted
        elif not quoted and character in "=/":
            break
        else:
            out.append(character)
        position += 1
    return "".join(out), position
