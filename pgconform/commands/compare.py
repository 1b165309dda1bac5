"""pgconform compare: what changed between two runs, in findings and in the catalogue."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described, show

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
example:
  pgconform compare yesterday/out reports/out

A and B are directories of two runs' reports, the earlier one first. Of the catalogue it says what drifted: what opens
(a grant, a wider policy, row security off), what closes, and what changes otherwise. exit status: 0 nothing is worse,
1 new findings, or something opens, or cannot be verified any more; 4 where A or B is no run
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "compare", help="what changed between two runs: findings, policies, grants, tables", **described(EPILOG)
    )
    command.add_argument("before", metavar="A", help="the earlier run's directory, or its findings.json")
    command.add_argument("now", metavar="B", help="the later run's")
    command.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Says what changed; 1 where something is worse."""
    from pgconform.reports.compare import as_json, as_text, compared

    found = compared(Path(known.before), Path(known.now))
    show(as_json(found) if known.format == "json" else as_text(found))
    return 1 if found.worse else 0
