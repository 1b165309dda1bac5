"""Questions in one message: what a role is answered, what is left behind, and what a refusal says."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Iterator
from decimal import Decimal
from threading import Timer
from typing import Any

import psycopg
import pytest

from pgconform.contract import Limits
from pgconform.database import Database, begin
from pgconform.introspect import read_text
from pgconform.model import NotVerified, TargetLost
from pgconform.statements import Name, Once, statement
from pgconform.targets.server import running

ODD = 'o\'ne "two" \\ %s $1 {x}; -- three\n/* four'
NOW = statement("select current_user::text, current_setting('row_security'), current_setting('app.who', true)")
TWICE = statement("select {v}::text || {v}::text, pg_catalog.pg_typeof({v})::text", v=Once(ODD))


@pytest.fixture(scope="module")
def made() -> Iterator[str]:
    with running() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            'create schema "Odd %s"; create role "Asks" nologin; create role hidden nologin;'
            'create table "Odd %s"."T""1" (id int primary key, who text);'
            'insert into "Odd %s"."T""1" values (1, \'a\'), (2, \'b\');'
            'alter table "Odd %s"."T""1" enable row level security;'
            'create policy own on "Odd %s"."T""1" using (who = current_setting(\'app.who\'));'
            'grant usage on schema "Odd %s" to "Asks"; grant select on "Odd %s"."T""1" to "Asks";'
            'create role reader login; grant "Asks" to reader;'
        )
        yield server.dsn()


@pytest.fixture
def database(made: str) -> Iterator[Database]:
    with psycopg.connect(made, autocommit=True, prepare_threshold=None) as connection:
        begin(connection, Limits())
        yield Database(connection)


def test_values_come_back_as_they_went(database: Database) -> None:
    given: dict[str, tuple[object, str]] = {
        "text": (ODD, "text"), "whole": (7, "int"), "large": (2**40, "bigint"), "real": (0.1, "float8"),
        "infinite": (float("inf"), "float8"), "exact": (Decimal("1.10"), "numeric"), "yes": (True, "boolean"),
        "nothing": (None, "text"), "day": (datetime.date(2026, 11, 29), "date"), "many": ((ODD, "b"), "text[]"),
    }  # fmt: skip
    for name, (value, kind) in given.items():
        (told,) = database.one(statement(f"select {{v}}::{kind}", v=value), "asking")
        assert told == (list(value) if isinstance(value, tuple) else value), name


def test_a_database_without_encoding_is_asked_in_utf_8(made: str) -> None:
    with psycopg.connect(made, autocommit=True) as connection:
        connection.execute("create database bytes encoding 'SQL_ASCII' template template0 locale 'C'")
        dsn = psycopg.conninfo.make_conninfo(made, dbname="bytes")
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        read_text(connection)
        begin(connection, Limits(), read_only=False)
        database, name = Database(connection), Name(("Zürich",))
        database.run(statement("create temporary table {t} as select {v}::text as {t}", t=name, v="Zoë"), "making")
        told = statement("select {t}, {v}::text from {t} where {t} = {v}", t=name, v="Zoë")
        assert database.rows(told, "asking") == [("Zoë", "Zoë")]
        assert database.rows(told, "asking", settings=[("app.who", "Zoë")]) == [("Zoë", "Zoë")]


def test_a_role_is_answered_as_its_session_is_and_nothing_is_left_behind(database: Database) -> None:
    before, whole = database.one(NOW, "asking"), statement("select id from {t} order by 1", t=Name(("Odd %s", 'T"1')))
    for _ in range(2):
        told = database.rows(NOW, "asking", role="Asks", settings=[("app.who", ODD)])
        assert told == [("Asks", "on", ODD)]
        assert database.rows(whole, "asking", role="Asks", settings=[("app.who", "b")]) == [(2,)]
        assert database.rows(whole, "asking", settings=[("app.who", "b")]) == [(1,), (2,)]
        assert database.one(NOW, "asking") == (*before[:2], "" if before[2] is None else before[2])
        before = database.one(NOW, "asking")


def test_a_refusal_says_what_and_leaves_the_transaction_usable(database: Database) -> None:
    broken, refused = statement("select 1 / {n}::int", n=0), statement("select 1 from {t}", t=Name(("no", "where")))
    before = database.one(NOW, "asking")
    for role in ("", "Asks"):
        with pytest.raises(NotVerified, match=r"while dividing; DivisionByZero \(SQLSTATE 22012\)") as told:
            database.rows(broken, "dividing", role=role)
        assert told.value.state == "22012"
        with pytest.raises(NotVerified, match=r'while looking; relation "no.where" does not exist \(SQLSTATE 42P01\)'):
            database.rows(refused, "looking", role=role)
        assert database.one(NOW, "asking")[:2] == before[:2]


def test_a_role_that_cannot_be_taken_on_is_not_the_roles_own_trouble(made: str) -> None:
    with psycopg.connect(made, user="reader", autocommit=True, prepare_threshold=None) as connection:
        begin(connection, Limits())
        database = Database(connection)
        assert database.one(NOW, "asking", role="Asks")[0] == "Asks"
        with pytest.raises(NotVerified, match=r"cannot act as role hidden \(SQLSTATE 42501\); grant hidden to") as told:
            database.rows(NOW, "asking", role="hidden")
        assert told.value.state == ""
        assert database.one(NOW, "asking")[0] == "reader"


@pytest.mark.parametrize("role", ["", "Asks"])
def test_what_an_application_binds_is_a_parameter(database: Database, role: str) -> None:
    """The server gives it one type wherever it stands, and its text has no value in it."""
    assert database.rows(TWICE, "asking", role=role) == [(ODD * 2, "text")]
    mine = "select query from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid() and {v} > ''"
    text = statement(mine, v=Once("c4n4ry"))
    assert "c4n4ry" not in database.one(text, "asking")[0]


def test_a_question_outside_a_transaction_begins_one_and_ends_it(made: str) -> None:
    with psycopg.connect(made, autocommit=True, prepare_threshold=None) as connection:
        database = Database(connection)
        assert database.one(statement("select {n}::int", n=3), "asking") == (3,)
        with pytest.raises(NotVerified, match="22012"):
            database.rows(statement("select 1 / {n}::int", n=0), "dividing")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_lost_server_is_told_as_lost(made: str, database: Database) -> None:
    (pid,) = database.one(statement("select pg_catalog.pg_backend_pid()"), "asking")
    with psycopg.connect(made, autocommit=True) as other:
        other.execute("select pg_catalog.pg_terminate_backend(%s, 10000)", [pid])  # waits until it is gone
    with pytest.raises(TargetLost, match="the server went away while asking"):
        database.rows(NOW, "asking")


@pytest.mark.parametrize("done", [True, False], ids=["answered", "not answered"])
def test_an_interrupt_leaves_the_transaction_usable(
    database: Database, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    send: Any = Database._message

    def interrupted(self: Database, text: str) -> Any:
        if "pg_sleep" in text:
            if done:
                send(self, text)
            else:
                Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                send(self, text.replace("(0)", "(60)"))
            raise KeyboardInterrupt
        return send(self, text)

    monkeypatch.setattr(Database, "_message", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            database.rows(statement("select 1 from pg_catalog.pg_sleep(0)"), "sleeping")
    finally:
        signal.signal(signal.SIGINT, before)
    assert database.one(NOW, "asking")[1] == "off"
