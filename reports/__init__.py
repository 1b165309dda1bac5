"""Renderers of a run: each reads the one stream of results and writes one file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgconform.results import Run


def write(run: Run, out: Path) -> None:
    """Write every report into the directory; each file appears whole or not at all.

    A report that cannot be written is a trouble of the run, and keeps no other one from being written.
    """
    from . import findings, html, junit

    renderers: dict[str, Callable[[Run], str]] = {
        "findings.json": findings.render, "junit.xml": junit.render, "report.html": html.render,
    }  # fmt: skip
    for name, render in renderers.items():
        try:
            out.mkdir(parents=True, exist_ok=True)
            draft = out / f".{name}.{os.getpid()}"
            draft.write_text(render(run), encoding="utf-8")
            draft.replace(out / name)
        except OSError as error:
            run.troubles.append(f"cannot write {name} to {out}: {error.strerror}; choose another with --pgc-out=")
