"""pgconform bench: vector searches measured beside the exact answer."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pgconform.commands.common import described, given, opened, show, target_of, writing

if TYPE_CHECKING:
    from pgconform.commands.common import Commands
    from pgconform.contract import Contract

_DECLARE = 'give search to the function that searches, under [functions."schema.name"], or add [queries.NAME]'
EPILOG = """\
examples:
  pgconform bench --contract=contract.toml --target=live --update-baseline      a first baseline
  pgconform bench --contract=contract.toml --target=live --compare              what has become worse, and why
  pgconform bench --contract=contract.toml --prepare='make migrate seed'        on an embedded server
  pgconform bench --contract=muva --clients=4 --queries=100

exit status: 0 as promised, 1 something is not, or is worse than the baseline, 2 interrupted, 3 something could not be
measured, 4 usage or contract error, 5 no search is declared, 75 the database cannot be reached
"""


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "bench",
        help="how well, and how fast, each declared vector search finds what it should",
        **described(EPILOG),
    )
    target_of(command)
    command.add_argument("--queries", default="40", metavar="N|FILE", help="how many, or a file of vectors, one a line")
    command.add_argument("--clients", type=int, default=2, metavar="N", help="at most so many at once (default: 2)")
    command.add_argument("--no-curves", dest="curves", action="store_false", help="do not try settings of the indexes")
    command.add_argument(
        "--baseline", default="reports/baselines", metavar="DIR", help="where baselines are (default: %(default)s)"
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--compare", action="store_true", help="compare with the baseline")
    how.add_argument(
        "--update-baseline",
        dest="update",
        action="store_true",
        help="make this the baseline, unless there are problems",
    )
    command.add_argument("--force", action="store_true", help="make this the baseline in spite of problems")
    command.add_argument(
        "--seconds", type=float, default=math.inf, metavar="N", help="begin nothing after so many: it is not measured"
    )
    command.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    command.add_argument("--history", metavar="DIR", help="record recall and times there, for trends")
    command.add_argument("--out", metavar="DIR", help="also into the directory of a run's reports, for its report.html")
    command.set_defaults(command=call)


def call(known: argparse.Namespace, _: list[str]) -> int:
    """Each contract's searches, measured beside the exact answer."""
    from dataclasses import replace
    from functools import partial

    from pgconform.asked import chosen
    from pgconform.history import append_figures
    from pgconform.model import Effort
    from pgconform.progress import shown
    from pgconform.reports import again
    from pgconform.reports.bench import as_json, as_text
    from pgconform.reports.beside import BENCH, keep

    try:
        from pgconform.vectors import baseline
        from pgconform.vectors.bench import Wanted, measure
        from pgconform.vectors.measuring import PACE, THOROUGH
    except ImportError:
        raise ValueError("pgconform bench needs numpy: python -m pip install 'pgconform[bench]'") from None
    wanted = Wanted.of(known.queries, known.clients, known.curves, known.seconds)
    if known.update:
        wanted = replace(wanted, pace=THOROUGH * PACE)
    outcomes = []
    contracts = chosen(given(known, "contract"))
    before = {
        c.name: Path(known.baseline) / f"{c.name}.json" for c in contracts
    }  # which may know searches that are declared no more
    searching = [c for c in contracts if _searches(c) or (known.compare and before[c.name].is_file())]
    for contract in contracts:
        if contract not in searching:
            print(f"contract {contract.name} declares no search, so nothing of it is measured: {_DECLARE}",
                  file=sys.stderr)  # fmt: skip
    if not searching:
        if known.format == "json":
            show(as_json([]))
        return 5
    with opened(known, Effort(), searching) as databases:
        for name in databases.facts():
            past = baseline.load(before[name]) if known.compare else None
            with shown(f"measuring searches of {name}") as meter:
                further = partial(databases.further, name)
                outcomes.append(measure(databases.evidence(name), further, wanted, past, meter))
    for outcome in outcomes if known.update else ():
        anything = bool(outcome.now.cases)  # else there is nothing to be made a baseline, even by force
        if (why := outcome.refusal) and not (known.force and anything):
            hint = "; --force updates it" if anything else ""
            print(f"the baseline of {outcome.contract} is not updated: {why}{hint}", file=sys.stderr)
        elif outcome.now.cases:
            with writing(before[outcome.contract], "--baseline"):
                baseline.save(before[outcome.contract], outcome.now)
            print(f"the baseline of {outcome.contract} is {before[outcome.contract]}", file=sys.stderr)
    for outcome in outcomes if known.history else ():
        where = databases.opened[outcome.contract].identity
        with writing(known.history, "--history"):
            append_figures(
                Path(known.history), databases.now, outcome.contract, where, outcome.status, outcome.figures()
            )
    if known.out:
        with writing(known.out):
            keep(Path(known.out), BENCH, json.loads(as_json(outcomes)))
        again(Path(known.out))
    for outcome in outcomes:
        if known.compare and outcome.status == 0:
            print(f"{outcome.contract}: nothing is worse than in {before[outcome.contract]}", file=sys.stderr)
        if outcome.status == 5:
            why = "no search that its contract declares is in the database; pgconform run says what is missing"
            print(f"nothing of {outcome.contract} is measured: {why}", file=sys.stderr)
    told = [as_text(outcome) for outcome in outcomes if outcome.status != 5]
    show(as_json(outcomes) if known.format == "json" else "\n\n".join(told))
    found = {outcome.status for outcome in outcomes}
    return next((status for status in (1, 3, 0) if status in found), 5)


def _searches(contract: Contract) -> bool:
    return bool(contract.queries) or any(function.search for function in contract.functions.values())
