"""GitHub Actions: annotations beside the contract's lines, and the step's summary."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .markdown import table_of
from .places import place
from .plain import plain, worst_first

if TYPE_CHECKING:
    from pgconform.results import Run

MOST = 10  # annotations of one kind that GitHub shows for a step
LARGEST = 1_000_000  # bytes; a step's summary may have 1 MiB
LONGEST = 4_000  # bytes of one annotation's message


def render(run: Run) -> str:
    """summary.md: the run as Markdown."""
    return table_of(run, LARGEST)


def append(run: Run) -> None:
    """Adds the summary to the file that GITHUB_STEP_SUMMARY names; that it cannot is a trouble of the run."""
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(step, "a", encoding="utf-8") as summary:
                summary.write(render(run))
        except OSError as error:
            run.troubles.append(f"cannot write the step's summary: {error.strerror}")


def commands(run: Run) -> list[str]:
    """Ten workflow commands at most, the worst first; the last one says how many there would be more."""
    told = [f"::error title=incomplete::{_message(text)}" for text in run.incomplete()]
    for level, result, finding, text in worst_first(run):
        path, line = place(run, result, finding)
        about = f"file={_property(path)},line={line},title={_property(result.check)}"
        remedy = f"\nremedy: {finding.remedy}" if finding and finding.remedy and level != "notice" else ""
        told.append(f"::{level} {about}::{_message(text + remedy)}")
    if len(told) > MOST:
        more = f"{len(told) - MOST + 1} more: see the step's summary, or findings.json"
        told[MOST - 1 :] = [f"::error title=pgconform::{more}"]
    return told


def _message(text: str) -> str:
    cut = plain(text).encode()[:LONGEST].decode("utf-8", "ignore")
    return cut.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
