"""catalog.json: what the databases' catalogues said, for comparing two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.drift import Facts
from pgconform.model import Mistake

if TYPE_CHECKING:
    from pgconform.results import Run

FORMAT = 1  # raised when a key changes its meaning or goes away
FILE = "catalog.json"


def render(run: Run) -> str:
    """Facts by contract and object, an object a line; no contract before the run has finished."""
    parts = []
    for contract, facts in sorted(run.catalogs.items()):
        lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(facts[name])}" for name in sorted(facts))
        parts.append(f"{json.dumps(contract)}:{{\n{lines}\n}}")
    return f'{{"format":{FORMAT},"catalogs":{{\n{",".join(parts)}}}}}\n'


def read(folder: Path) -> dict[str, Facts]:
    """The facts of a run's directory, by contract; {} where it has none. Raises Mistake."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError
        return dict(told["catalogs"])
    except OSError as error:
        raise Mistake(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Mistake(f"{path}: not the {FILE} of a run, of format {FORMAT}") from None
