"""Where in a contract's file a result has its promise: a path and a line, for reports that point at a line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgconform.names import canonical, qualified, split

if TYPE_CHECKING:
    from pgconform.model import Finding, Result
    from pgconform.results import Run


def shown(path: Path) -> str:
    """The path from the working directory, with slashes; the bare name of a file outside of it, or of a package's."""
    full = path.resolve()
    inside = full.is_relative_to(Path.cwd()) and "site-packages" not in full.parts
    return (full.relative_to(Path.cwd()) if inside else Path(full.name)).as_posix()


def place(run: Run, result: Result, finding: Finding | None = None) -> tuple[str, int]:
    """The contract's file and the line, from 1, whose section names the finding's object, or else the subject.

    Line 1 where no section does; the name of the contract where its file is not known.
    """
    path = run.files.get(result.contract)
    if path is None:
        return f"{result.contract}.toml", 1
    sections = _sections(path)
    for name in (*(_candidates(finding.object) if finding else ()), *_candidates(result.subject)):
        if name in sections:
            return shown(path), sections[name]
    return shown(path), 1


def _candidates(name: str) -> Iterator[str]:
    """The name, a function's without its arguments, and the table that a column's name begins with."""
    yield name
    bare = name.partition("(")[0]
    yield bare
    with suppress(ValueError):
        yield qualified(*split(bare)[:2])


@cache
def _sections(path: Path) -> dict[str, int]:
    """The line of the first section about each object, by the object's name; {} for what cannot be read.

    tomllib tells no lines: each header is parsed by itself, headers inside multi-line texts left out.
    """
    found: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    closing = ""
    for number, line in enumerate(lines, 1):
        quotes = closing or next((q for q in ('"""', "'''") if q in line), "")
        inside, odd = bool(closing), bool(quotes) and line.count(quotes) % 2 == 1
        closing = (("" if odd else quotes) if inside else (quotes if odd else "")) if quotes else ""
        if inside or not line.lstrip().startswith("["):
            continue
        for name in _names(line):
            found.setdefault(name, number)
    return found


def _names(header: str) -> list[str]:
    """What a section's header names below its first word, canonical where it is a name of the database."""
    try:
        node: Any = tomllib.loads(header)
    except tomllib.TOMLDecodeError:
        return []
    path: list[str] = []
    while node:
        node = node[0] if isinstance(node, list) else node
        key = next(iter(node), None)
        if key is None:
            break
        path.append(key)
        node = node[key]
    return [_canonical(name) for name in path[1:2]]


def _canonical(name: str) -> str:
    try:
        return canonical(name, 2)
    except ValueError:
        return name
