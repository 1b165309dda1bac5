"""The guides' rows: id, section, obligation, kind and cadence, in our own words."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import msgspec


class Row(msgspec.Struct, frozen=True):
    """``kind`` is made of C catalogue, D data, B behaviour, W write drill, S statistics, P performance."""

    id: str
    section: str
    obligation: str
    kind: tuple[str, ...]
    when: str


@cache
def guides() -> dict[str, tuple[Row, ...]]:
    """The rows of each guide, by the guide's name."""
    found = {}
    for path in sorted((files("pgconform.fixtures") / "guides").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".toml"):
            listed = tomllib.loads(path.read_text(encoding="utf-8"))["row"]
            found[path.name.removesuffix(".toml")] = msgspec.convert(tuple(listed), tuple[Row, ...])
    return found


def rows_of(guide: str, ids: Iterable[str]) -> list[Row]:
    """The rows of one guide among the ids, in the order of the ids."""
    known = {row.id: row for row in guides().get(guide, ())}
    return [known[id] for id in ids if id in known]


def sections_of(guide: str, ids: Iterable[str]) -> list[str]:
    """The sections that the ids' rows stand in, in the order of the ids."""
    return [row.section for row in rows_of(guide, ids)]
