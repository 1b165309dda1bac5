"""pgconform access: the matrix of role, relation and command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import asked_of, described, given, opened, show

if TYPE_CHECKING:
    from pgconform.commands.common import Commands

EPILOG = """\
examples:
  pgconform access --contract=contract.toml --target=live
  pgconform access --contract=muva --format=json
  pgconform access --contract=contract.toml --target=live --out=reports/out      also into that run's report.html

exit status: 0 as declared, 1 something differs, 2 interrupted, 3 something could not be verified, 4 usage or contract
error, 5 nothing was examined, 75 the database cannot be reached or was lost
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "access",
        help="whose rows each role may touch: what the contract declares beside what was observed",
        **described(EPILOG),
    )
    asked_of(command)
    command.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    command.add_argument("--out", metavar="DIR", help="also into the directory of a run's reports, for its report.html")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """The matrix of role, relation and command of each contract: declared beside observed."""
    from pgconform.attacks.access import observe
    from pgconform.model import Effort
    from pgconform.progress import shown
    from pgconform.reports import again
    from pgconform.reports.access import Matrix, as_json, as_text, status
    from pgconform.reports.beside import ACCESS, keep

    effort, made = Effort.of(given(known, "effort", "default"), given(known, "seed", "1")), []
    with opened(known, effort) as databases:
        for name, facts in databases.facts().items():
            evidence = databases.evidence(name)
            with shown(f"trying what roles may do by {name}") as meter:
                cells = observe(evidence, meter)
            attempts, services = evidence.drills.attempts if evidence.writing else 0, evidence.contract.roles.services
            made.append(Matrix(name, facts, cells, attempts, services))
    if known.out:
        keep(Path(known.out), ACCESS, json.loads(as_json(made, effort)))
        again(Path(known.out))
    show((as_json if known.format == "json" else as_text)(made, effort))
    return int(status(made)[0])
