"""All checks of the bundled suites, by importing them: for explain, the docs and the proofs."""

from __future__ import annotations

import importlib
from pathlib import Path

from pgconform.checks import REGISTRY, Check


def load() -> dict[str, Check]:
    """Every check by its id, ordered by suite, file and place in the file."""
    import pgconform.suites

    home = Path(str(pgconform.suites.__file__)).parent
    for path in sorted(home.rglob("test_*.py")):
        importlib.import_module(f"pgconform.suites.{'.'.join(path.relative_to(home).with_suffix('').parts)}")
    return dict(REGISTRY)
