"""What earlier runs found, as it stands in findings.json: reports that are written again later show it, too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pgconform.history import Past
from pgconform.model import Verdict

_LETTERS = {"": "-"} | {str(verdict): str(verdict)[0] for verdict in Verdict}
_WORDS = {letter: word for word, letter in _LETTERS.items()}


def packed(verdicts: Sequence[str]) -> str:
    """The verdicts' first letters, '-' for '', each after how often it follows itself: ``28pf-``."""
    runs = ((letter, len(list(same))) for letter, same in groupby(_LETTERS[verdict] for verdict in verdicts))
    return "".join(f"{count if count > 1 else ''}{letter}" for letter, count in runs)


def unpacked(text: str) -> tuple[str, ...]:
    """The inverse of ``packed``. Raises KeyError."""
    return tuple(_WORDS[letter] for count, letter in re.findall(r"(\d*)(\D)", text) for _ in range(int(count or 1)))


def told(past: Past) -> dict[str, Any]:
    """For JSON."""
    cases = [
        {"check": check, "subject": subject, "verdicts": packed(verdicts),
         "keys": sorted(past.keys.get((check, subject), ()))}
        for (check, subject), verdicts in past.verdicts.items()
    ]  # fmt: skip
    return {"started": past.started, "cases": cases, "figures": past.figures}


def heard(document: Mapping[str, Any]) -> Past:
    """The inverse of ``told``. Raises KeyError, TypeError or ValueError for anything else."""
    cases = {(case["check"], case["subject"]): case for case in document["cases"]}
    return Past(
        document["started"],
        {name: frozenset(case["keys"]) for name, case in cases.items()},
        {name: unpacked(case["verdicts"]) for name, case in cases.items()},
        {name: [(when, value) for when, value in values] for name, values in document["figures"].items()},
    )
