"""How fast attempts are made: in one message each, beside a round trip for each of their statements.

Three ways make the same attempts on one connection to the VictorySync reference database, in turn, so that the ratios
hold on a noisy machine: ``Database.attempt``; ``Database.acting``, as the engine asks whatever is not an attempt; and
just the statements of an attempt, one by one. Choosing rows and building statements is left out.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache

import psycopg

from pgconform.attacks.bait import bait, forbidden, targets
from pgconform.attacks.roads import READS, WRITES, Aim
from pgconform.checks import Evidence
from pgconform.contract_file import load, resolve
from pgconform.database import Database, Outcome, begin
from pgconform.identities import Identity, identities
from pgconform.introspect import read_text, snapshot
from pgconform.model import Nothing, NotVerified
from pgconform.names import literal, quote
from pgconform.statements import Statement
from pgconform.targets.embedded import server

from .conftest import Measured

CONTRACT = "victorysync"
ROADS = tuple(road for road in (*READS, *WRITES) if road.name in ("select", "insert", "update", "delete"))
ROUNDS = 3  # about 12 s on a quiet machine
WANTED = 1.5  # times as fast as by Database.acting

Way = Callable[[Database, Identity, Statement], Outcome]


def attempts(evidence: Evidence) -> Iterator[tuple[Identity, Statement]]:
    """One attempt of each session on a row that it must not touch, in each relation, by the plain roads."""
    version = evidence.catalog.server.version
    for table in targets(evidence.catalog, evidence.contract, evidence.privileges):
        try:
            given = bait(evidence, table)
        except Nothing:
            continue
        for road in ROADS:
            for who in identities(evidence):
                for number in forbidden(evidence, given, who, road.commands)[:1]:
                    command = road.build(Aim(given, who.role, number, 0, evidence.privileges, version))
                    if command:
                        yield who, command


def together(database: Database, who: Identity, command: Statement) -> Outcome:
    return database.attempt(who.role, who.settings, command)


def acting(database: Database, who: Identity, command: Statement) -> Outcome:
    connection = database.connection
    try:
        with database.acting(who.role, who.settings):
            return Outcome(connection.execute(command.inline(connection).encode(), prepare=False).rowcount)
    except NotVerified as refusal:
        return Outcome(0, refusal.state)


def apart(database: Database, who: Identity, command: Statement) -> Outcome:
    connection = database.connection
    for text in become(who):
        connection.execute(text.encode(), prepare=False)
    try:
        outcome = Outcome(connection.execute(command.inline(connection).encode(), prepare=False).rowcount)
    except psycopg.Error as error:
        outcome = Outcome(0, error.sqlstate or "?")
    for text in ("rollback to savepoint attempt", "release savepoint attempt"):
        connection.execute(text.encode(), prepare=False)
    return outcome


@cache
def become(who: Identity) -> tuple[str, str, str]:
    """How an attempt begins."""
    settings = [f"pg_catalog.set_config({literal(n)}, {literal(v)}, true)" for n, v in who.settings]
    settings.append("pg_catalog.set_config('row_security', 'on', true)")
    return "savepoint attempt", f"select {', '.join(settings)}", f"set local role {quote(who.role)}"


WAYS: dict[str, Way] = {"in one message": together, "by acting": acting, "one by one": apart}


def test_attempts_go_in_one_message_faster_than_statement_by_statement(measured: Measured) -> None:
    contract = load(resolve(CONTRACT))
    with server([CONTRACT]) as started, psycopg.connect(started.dsn(CONTRACT), autocommit=True) as connection:
        read_text(connection)
        begin(connection, contract.limits, read_only=False)
        database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, snapshot(connection), database, today, lambda: database)
        made = list(attempts(evidence))[:: 1 if measured.long else 5]

        def turn() -> list[float]:
            took, told = [], []
            for way in WAYS.values():
                started_at = time.perf_counter()
                outcomes = [way(database, who, command) for who, command in made]
                took.append(time.perf_counter() - started_at)
                told.append([(outcome.rows, outcome.state) for outcome in outcomes])
            assert told[0] == told[1] == told[2], "the ways tell different things of the same attempts"
            return took

        turns = measured.rounds(turn, ROUNDS)
        connection.execute("rollback")
    for name, each in zip(WAYS, zip(*turns, strict=True), strict=True):
        measured.row(f"attempts {name}", len(made) / statistics.median(each), "/s")
    faster = [statistics.median(took[way] / took[0] for took in turns) for way in (1, 2)]
    measured.row("attempts in one message beside by acting", faster[0], "x", least=WANTED)
    measured.row("attempts in one message beside one by one", faster[1], "x")
