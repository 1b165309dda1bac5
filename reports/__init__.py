"""Renderers of a run: each reads the one stream of results and writes one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.model import Mistake

from .beside import read

if TYPE_CHECKING:
    from pgconform.results import Run

# Module and file of each report; every run writes the first four.
FILES = {
    "findings": "findings.json",
    "junit": "junit.xml",
    "html": "report.html",
    "catalog": "catalog.json",
    "sarif": "pgconform.sarif",
    "github": "summary.md",
    "gitlab": "gl-code-quality-report.json",
    "markdown": "comment.md",
    "prometheus": "pgconform.prom",
}
ALWAYS = ("findings", "junit", "html", "catalog")


def write(run: Run, out: Path, names: Sequence[str] = ALWAYS) -> None:
    """Write the named reports into the directory; each file appears whole or not at all.

    A report that cannot be written is a trouble of the run, which the other ones tell. Before a run has finished the
    reports say so: whatever ends it by force leaves them.
    """
    run.beside = read(out) or run.beside
    failed = _written(run, out, names)
    if failed:
        _written(run, out, [name for name in names if name not in failed])
    if "github" in names and run.finished:
        import_module(".github", __name__).append(run)


def again(out: Path) -> None:
    """Write report.html anew where a run's findings.json stands in the directory, with what other commands left there
    since."""
    from .findings import FILE
    from .findings import read as read_run

    with suppress(Mistake):  # no run's, or one of another version: the next run shows what was left
        if (out / FILE).exists():
            write(read_run(out), out, ("html",))


def _written(run: Run, out: Path, names: Sequence[str]) -> list[str]:
    """Those that could not be written."""
    failed = []
    for name in names:
        render: Callable[[Run], str] = import_module(f".{name}", __name__).render
        file = FILES[name]
        draft = out / f".{file}.{os.getpid()}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(render(run).encode("utf-8", "backslashreplace"))
            draft.replace(out / file)
        except OSError as error:
            run.troubles.append(f"cannot write {file} to {out}: {error.strerror}; choose another with --out=")
            failed.append(name)
            with suppress(OSError):
                draft.unlink()
    return failed
