"""Whether the gates of the search benchmark cry wolf: many runs on one unchanged database, beside the first one.

    python -m benchmarks.search [--runs=30] [--queries=40] [--reference [--scale=4]]

Each run measures all searches anew and compares them with the first run, as pgconform bench --compare does: those of a
small database that use their index, or those of the MUVA reference database. What a line shows is the worst of all
cases: the median time, the time in calibrations and the pages touched beside the first run's, the lowest recall; and
each alarm, of which there must be none.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from pgconform.fixtures.databases import build
from pgconform.reports.bench import as_text

from pgconform.checks import Evidence
from pgconform.contract import Limits
from pgconform.contract_file import load, resolve
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.targets.server import running
from pgconform.vectors.baseline import Baseline
from pgconform.vectors.bench import Outcome, Wanted, measure

from . import shop

CONTRACT = "muva"


def line(number: int, outcome: Outcome, first: Baseline, seconds: float) -> str:
    """One run beside the first."""
    pairs = [(found, first.cases[name]) for name, found in outcome.now.cases.items()]
    ratio = max(found.ratio / base.ratio for found, base in pairs)
    median = max(found.p50 / base.p50 for found, base in pairs)
    pages = max(found.buffers / max(1, base.buffers) for found, base in pairs)
    recall = min(found.recall for found, _ in pairs)
    alarms = "; ".join(f"{p.kind}: {p.case}" for p in outcome.problems) or "none"
    return f"{number:>4} {seconds:>6.1f} {median:>8.2f} {ratio:>8.2f} {pages:>7.2f} {recall:>7.3f}  {alarms}"


def main() -> int:
    """Print the table; returns the number of alarms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--reference", action="store_true", help="search the reference database")
    parser.add_argument("--scale", type=float, default=4.0, help="times the rows of the reference database")
    parser.add_argument("--queries", type=int, default=40)
    given = parser.parse_args()
    wanted = Wanted(given.queries, (1,), False)
    contract = load(resolve(CONTRACT)) if given.reference else shop.contract()
    today = datetime.datetime.now(datetime.UTC).date()
    with running() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            if given.reference:
                build(connection, CONTRACT, scale=given.scale)
            else:
                shop.fill(connection)

        @contextmanager
        def session() -> Iterator[Database]:
            with psycopg.connect(server.dsn(), autocommit=True, prepare_threshold=None) as connection:
                read_text(connection)
                begin(connection, Limits())
                yield Database(connection)

        with session() as database:
            evidence = Evidence(contract, snapshot(database.connection), database, today)
            outcome = measure(evidence, session, wanted)
            first, alarms = outcome.now, 0
            print(as_text(outcome), flush=True)
            print(f"\n{'run':>4} {'s':>6} {'median x':>8} {'ratio x':>8} {'pages x':>7} {'recall':>7}  alarms")
            for number in range(1, given.runs + 1):
                started = time.perf_counter()
                outcome = measure(evidence, session, wanted, first)
                alarms += len(outcome.problems)
                print(line(number, outcome, first, time.perf_counter() - started), flush=True)
    print(f"{alarms} alarms in {given.runs} runs")
    return alarms


if __name__ == "__main__":
    sys.exit(main())
