"""Whether the gates of the search benchmark cry wolf: many runs on one unchanged database, beside the first one.

Each run measures all searches anew and compares them with the first run, as pgconform bench --compare does: those of a
small database that use their index and, in the long form, those of the MUVA reference database. Told is the worst of
all runs and cases: the median time, the time in calibrations and the pages touched beside the first run's, the lowest
recall; and alarms, of which there must be none.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from pgconform.fixtures.databases import build

from pgconform.checks import Evidence
from pgconform.contract import Limits
from pgconform.contract_file import load, resolve
from pgconform.database import Database, begin
from pgconform.introspect import read_text, snapshot
from pgconform.targets.server import running
from pgconform.vectors.bench import Wanted, measure

from . import shop
from .conftest import Measured

CONTRACT, SCALE = "muva", 4.0  # times the rows of the reference database
SHORT, LONG = 3, 30  # runs


@pytest.mark.parametrize("which", ["shop", pytest.param(CONTRACT, marks=pytest.mark.long)])
def test_an_unchanged_database_raises_no_alarm(measured: Measured, which: str) -> None:
    contract = load(resolve(CONTRACT)) if which == CONTRACT else shop.contract()
    today = datetime.datetime.now(datetime.UTC).date()
    wanted = Wanted(40, (1,), False)
    with running() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            if which == CONTRACT:
                build(connection, CONTRACT, scale=SCALE)
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
            first = measure(evidence, session, wanted).now
            runs = measured.rounds(lambda: measure(evidence, session, wanted, first), LONG if measured.long else SHORT)
    alarms = [f"{problem.kind}: {problem.case}" for run in runs for problem in run.problems]
    for alarm in alarms:
        measured.say(alarm)
    pairs = [(found, first.cases[name]) for run in runs for name, found in run.now.cases.items()]
    what = f"search benchmark of {which}"
    measured.row(f"{what}: runs", len(runs))
    measured.row(f"{what}: one run", measured.median, "s")
    measured.row(f"{what}: worst median beside the first", max(now.p50 / base.p50 for now, base in pairs), "x")
    measured.row(f"{what}: worst in calibrations", max(now.ratio / base.ratio for now, base in pairs), "x")
    measured.row(f"{what}: most pages", max(now.buffers / max(1, base.buffers) for now, base in pairs), "x")
    measured.row(f"{what}: lowest recall", min(now.recall for now, _ in pairs))
    measured.row(f"{what}: alarms", len(alarms), most=0)
