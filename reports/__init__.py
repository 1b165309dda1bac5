"""Renderers of a run: each reads the one stream of results and writes one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.model import Mistake, unwritable

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
    _written(run, out, names)
    if "github" in names and run.finished:
        before = len(run.troubles)
        import_module(".github", __name__).append(run)
        if run.troubles[before:]:
            _written(run, out, names)


def again(out: Path) -> None:
    """Write report.html anew where a run's findings.json stands in the directory, with what other commands left there
    since."""
    from .findings import FILE
    from .findings import read as read_run

    with suppress(Mistake):  # no run's, or one of another version: the next run shows what was left
        if (out / FILE).exists():
            write(read_run(out), out, ("html",))


def _written(run: Run, out: Path, names: Sequence[str]) -> None:
    """All of them, or none: where one cannot be written the others begin anew, since each has to tell of it."""
    wanted = list(names)
    while wanted:
        drafts = {name: out / f".{FILES[name]}.{os.getpid()}" for name in wanted}
        name = wanted[0]
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, draft in drafts.items():
                render: Callable[[Run], str] = import_module(f".{name}", __name__).render
                draft.write_bytes(render(run).encode("utf-8", "backslashreplace"))
            for name, draft in drafts.items():
                draft.replace(out / FILES[name])
            return
        except OSError as error:
            run.troubles.append(unwritable(f"{FILES[name]} to {out}", error))
            wanted.remove(name)
        finally:
            for draft in drafts.values():
                with suppress(OSError):
                    draft.unlink()
