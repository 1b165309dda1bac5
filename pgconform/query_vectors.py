"""Vectors to search for, out of a file: one a line, as PostgreSQL writes it or as JSON. What is in the file is never
told: a line is named by its number."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

from pgconform.model import Mistake

MOST = 10_000  # vectors in a file
# What the types can hold (pgvector's and PostgreSQL's floats).
_LARGEST = {"halfvec": 65_504.0, "bit": 1.0}
_SINGLE = 3.4e38
_FORM = {"bit": "0101", "sparsevec": "{1:0.5,3:1}/4"}
_SPARSE = re.compile(r"\{([^{}]*)\}/(\d{1,9})")


@cache
def read(path: Path, kind: str, dimension: int) -> tuple[tuple[float, ...], ...]:
    """The vectors of a type in a file, empty lines left out. Raises Mistake, which does not name the file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Mistake("the file does not exist") from None
    except OSError as error:
        raise Mistake(f"the file cannot be read: {error.strerror}") from None
    except ValueError:
        raise Mistake("the file cannot be read as UTF-8 text") from None
    found = []
    for number, line in enumerate(lines, 1):
        if filled := line.strip():
            vector = _vector(filled, kind, dimension)
            if why := _unfit(vector, kind, dimension):
                raise Mistake(f"line {number}: {why}")
            found.append(tuple(vector or ()))
    if not 1 <= len(found) <= MOST:
        raise Mistake(f"wanted 1 to {MOST} vectors, one a line, not {len(found)}")
    return tuple(found)


def text(vector: tuple[float, ...], kind: str) -> str:
    """A vector as PostgreSQL reads it."""
    if kind == "bit":
        return "".join("1" if bit else "0" for bit in vector)
    if kind == "sparsevec":
        return f"{{{','.join(f'{n}:{value!r}' for n, value in enumerate(vector, 1) if value)}}}/{len(vector)}"
    return f"[{','.join(map(repr, vector))}]"


def _vector(line: str, kind: str, dimension: int) -> list[float] | None:
    """The numbers of a line; None where it is no vector, or a sparse one of another dimension."""
    if kind == "bit" and re.fullmatch("[01]+", line):
        return [float(bit) for bit in line]
    try:
        if kind == "sparsevec" and (sparse := _SPARSE.fullmatch(line)):
            filled = dict(part.split(":") for part in sparse[1].split(",") if part)
            known = {int(place): float(value) for place, value in filled.items()}
            fits = int(sparse[2]) == dimension and all(0 < place <= dimension for place in known)
            return [known.get(place, 0.0) for place in range(1, dimension + 1)] if fits else None
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(found, list) and all(type(number) in (int, float) for number in found)
    return [float(number) if abs(number) <= _SINGLE else math.inf for number in found] if numbers else None


def _unfit(vector: list[float] | None, kind: str, dimension: int) -> str:
    """Why the numbers are no vector to search for; '' where they are."""
    if vector is None:
        return f"wanted a {kind} of {dimension} numbers, such as {_FORM.get(kind, '[0.5,0,1]')}"
    if len(vector) != dimension:
        return f"wanted {dimension} numbers, found {len(vector)}"
    if not all(abs(number) <= _LARGEST.get(kind, _SINGLE) for number in vector):  # which nan is not, either
        return f"a number is none that a {kind} can hold"
    if kind == "bit":
        return "" if all(number in (0, 1) for number in vector) else "a number is none that a bit can hold"
    return "" if any(vector) else "a vector of zeros is near nothing"
