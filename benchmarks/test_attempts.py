"""How fast attempts are made: in one message each, beside a round trip for each of their statements.

    python -m benchmarks.attacks

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
        with database.acting(who.role, dict(who.settings)):
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


def main() -> int:
    """Print the rates and their ratios; returns 1 when one message is not fast enough, or tells something else."""
    contract = load(resolve(CONTRACT))
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with server([CONTRACT]) as started, psycopg.connect(started.dsn(CONTRACT), autocommit=True) as connection:
        read_text(connection)
        begin(connection, contract.limits, read_only=False)
        database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
        evidence = Evidence(contract, snapshot(connection), database, today, lambda: database)
        made = list(attempts(evidence))
        for _ in range(ROUNDS):
            told = []
            for name, way in WAYS.items():
                started_at = time.perf_counter()
                outcomes = [way(database, who, command) for who, command in made]
                seconds[name].append(time.perf_counter() - started_at)
                told.append([(outcome.rows, outcome.state) for outcome in outcomes])
            if told[0] != told[1] or told[0] != told[2]:
                print("the ways tell different things of the same attempts")
                return 1
        connection.execute("rollback")
    rates = ", ".join(f"{len(made) / statistics.median(each):,.0f}/s {name}" for name, each in seconds.items())
    print(f"{len(made)} attempts, {ROUNDS} rounds: {rates}")
    first, *others = (seconds[name] for name in WAYS)
    ratios = [statistics.median(b / a for a, b in zip(first, each, strict=True)) for each in others]
    print(f"one message is {ratios[0]:.2f} times as fast as acting, {ratios[1]:.2f} times as one by one")
    print(f"at least {WANTED} times as fast as acting is wanted")
    return int(ratios[0] < WANTED)


if __name__ == "__main__":
    raise SystemExit(main())
