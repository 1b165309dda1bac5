"""How fast attempts are made and questions asked: in one message each, beside a round trip a statement.

Both ways do the same on one connection to the VictorySync reference database, in turn, so that the ratios hold on a
noisy machine. Choosing rows and building statements is left out. Over a network each round trip costs more than here.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import psycopg

from pgconform.attacks.bait import bait, forbidden, targets
from pgconform.attacks.roads import READS, WRITES, Aim
from pgconform.checks import Evidence
from pgconform.contract_file import load, resolve
from pgconform.database import Database, begin
from pgconform.identities import Identity, identities
from pgconform.introspect import read_text, snapshot
from pgconform.model import Nothing
from pgconform.names import literal, quote
from pgconform.statements import Name, Statement, statement
from pgconform.targets.embedded import server

from .conftest import Measured

CONTRACT = "victorysync"
ROADS = tuple(road for road in (*READS, *WRITES) if road.name in ("select", "insert", "update", "delete"))
ROUNDS = 3  # about 8 s on a quiet machine
WANTED = 1.5  # times as fast as statement by statement

Told = tuple[object, str]  # what came of it, and an SQLSTATE
Way = Callable[[Database, Identity, Statement], Told]


def test_attempts_go_in_one_message_faster_than_statement_by_statement(measured: Measured) -> None:
    with prepared() as evidence:
        made = list(attempts(evidence))[:: 1 if measured.long else 5]
        compared(measured, evidence.database, "attempts", made, together, apart)


def test_questions_go_in_one_message_faster_than_statement_by_statement(measured: Measured) -> None:
    with prepared() as evidence:
        made = list(questions(evidence))[:: 1 if measured.long else 5]
        compared(measured, evidence.database, "questions", made, asked, asked_apart)


@contextmanager
def prepared() -> Iterator[Evidence]:
    contract = load(resolve(CONTRACT))
    with server([CONTRACT]) as started, psycopg.connect(started.dsn(CONTRACT), autocommit=True) as connection:
        read_text(connection)
        begin(connection, contract.limits, read_only=False)
        database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
        yield Evidence(contract, snapshot(connection), database, today, lambda: database)
        connection.execute("rollback")


def compared(
    measured: Measured, database: Database, what: str, made: list[tuple[Identity, Statement]], one: Way, other: Way
) -> None:
    """The same by both ways, in turn; told and judged."""

    def turn() -> list[float]:
        took, told = [], []
        for way in (one, other):
            started_at = time.perf_counter()
            told.append([way(database, who, command) for who, command in made])
            took.append(time.perf_counter() - started_at)
        assert told[0] == told[1], f"the ways tell different things of the same {what}"
        return took

    turns = measured.rounds(turn, ROUNDS)
    for name, each in zip(("in one message", "one by one"), zip(*turns, strict=True), strict=True):
        measured.row(f"{what} {name}", len(made) / statistics.median(each), "/s")
    faster = statistics.median(apart / together for together, apart in turns)
    measured.row(f"{what} in one message beside one by one", faster, "x", least=WANTED)


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


def questions(evidence: Evidence) -> Iterator[tuple[Identity, Statement]]:
    """How many rows each relation has, as often as there are sessions."""
    for table in targets(evidence.catalog, evidence.contract, evidence.privileges):
        for who in identities(evidence):
            name = Name((table.schema, table.name))
            yield who, statement("select pg_catalog.count(*) from {t} as r where {v} <> ''", t=name, v=str(table))


def together(database: Database, who: Identity, command: Statement) -> Told:
    outcome = database.attempt(who.role, who.settings, command)
    return outcome.rows, outcome.state


def apart(database: Database, who: Identity, command: Statement) -> Told:
    execute = database.connection.execute
    for text in become(who):
        execute(text.encode(), prepare=False)
    try:
        told: Told = execute(command.inline(database.connection).encode(), prepare=False).rowcount, ""
    except psycopg.Error as error:
        told = 0, error.sqlstate or "?"
    for text in ("rollback to savepoint attempt", "release savepoint attempt"):
        execute(text.encode(), prepare=False)
    return told


def asked(database: Database, _: Identity, question: Statement) -> Told:
    return database.rows(question, "counting"), ""


def asked_apart(database: Database, _: Identity, question: Statement) -> Told:
    text, parameters = question.run_text()
    database.connection.execute("savepoint question", prepare=False)
    with psycopg.RawCursor(database.connection) as cursor:
        told = cursor.execute(text.encode(), parameters, prepare=False).fetchall()
    database.connection.execute("release savepoint question", prepare=False)
    return told, ""


@cache
def become(who: Identity) -> tuple[str, str, str]:
    """How an attempt begins."""
    settings = [f"pg_catalog.set_config({literal(n)}, {literal(v)}, true)" for n, v in who.settings]
    settings.append("pg_catalog.set_config('row_security', 'on', true)")
    return "savepoint attempt", f"select {', '.join(settings)}", f"set local role {quote(who.role)}"
