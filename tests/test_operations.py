"""What the statistics views tell, on servers that have them all: Debian's PostgreSQL 15 with its extensions."""

from __future__ import annotations

import datetime
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgconform.catalogue_of_checks import load
from pgconform.checks import Evidence, evaluate
from pgconform.contract_operations import Operations
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.model import Result, Verdict
from pgconform.probes import bloat
from pgconform.probes.activity import masked
from pgconform.targets.embedded import server
from pgconform.targets.server import Server
from tests.committing import FLUSH, clone
from tests.proving import contract_of, transaction


def judged(connection: psycopg.Connection[Any], check: str, promise: str = "", name: str = "victorysync") -> Result:
    """What one check says, in a transaction like a run's."""
    contract = contract_of(name, promise)
    with transaction(connection, contract):
        today = datetime.datetime.now(datetime.UTC).date()
        return evaluate(load()[check], Evidence(contract, snapshot(connection), Database(connection), today))


def connected(dsn: str) -> closing[psycopg.Connection[Any]]:
    return closing(psycopg.connect(dsn, autocommit=True, prepare_threshold=None))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alter role app password 'secret'", "ALTER ..."),
        ("CREATE USER x PASSWORD 'secret'", "CREATE ..."),
        ("select * from t where a = $1 and b = 'O''Neil' -- 'secret'", "SELECT * FROM t WHERE a = $1 AND b = $2"),
        ("select $$secret$$, $x$secret $$ too$x$, 4711, 12.5 /* secret */", "SELECT $1, $2, $3, $4"),
        ("select '--x'\n, 'secret'", "SELECT $1, $2"),
        ("select E'it\\'s secret', \"o'clock\", 'secret'", 'SELECT $1, "o\'clock", $2'),
        ("", "a statement that is cut off, or of another version's grammar"),
        ("select 1 /* a /* secret */ b */, $1", "SELECT $2, $1"),
        ("do$$secret$$", "a statement that is cut off, or of another version's grammar"),
        ("select 'never ends secret", "a statement that is cut off, or of another version's grammar"),
    ],
)
def test_no_value_of_a_statement_is_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_slow_statements_are_named_without_their_values(contrib: Server) -> None:
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        connection.execute("select extensions.pg_stat_statements_reset()")
        for n in range(3):
            connection.execute(f"select 'a secret', {n}, pg_catalog.pg_sleep(0.1)".encode())
            connection.execute("create role short_lived password 'another secret'; drop role short_lived")
        limits = "operations.statement_ms = 50\noperations.least_calls = 3"
        result = judged(connection, "statements-fast", limits)
        assert [f.object.split()[0] for f in result.findings] == ["statement"]
        assert "3 time(s): SELECT" in result.findings[0].observed
        assert "secret" not in repr(judged(connection, "statements-fast", "operations.statement_ms = 0.000001"))
        connection.execute(result.findings[0].remedy.encode())
        assert judged(connection, "statements-fast", limits).findings == ()


def test_hidden_statements_and_sessions_are_not_verified(contrib: Server) -> None:
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        connection.execute("create role ordinary login bypassrls; grant pg_read_all_data to ordinary")
        connection.execute("grant usage on schema extensions to ordinary")
        with connected(dsn.replace("user='postgres'", "user='ordinary'")) as poor:
            for check in ("statements-fast", "connections-used", "sessions-running", "sessions-idle-in-transaction"):
                result = judged(poor, check)
                assert result.verdict is Verdict.BROKEN
                assert "grant pg_read_all_stats" in result.reason
            connection.execute("grant pg_read_all_stats to ordinary")
            assert judged(poor, "connections-used").verdict is Verdict.PASSED
            assert (
                "EXECUTE on function extensions.pg_stat_statements(boolean)" in judged(poor, "statements-fast").reason
            )
            connection.execute("grant execute on function extensions.pg_stat_statements(boolean) to ordinary")
            called(connection, 5)
            assert judged(poor, "statements-fast").verdict is Verdict.PASSED
        connection.execute("drop owned by ordinary; drop role ordinary")


def test_what_is_stored_out_of_line_is_air_too(contrib: Server) -> None:
    """The estimate finds no more than there is, and a rewritten table has none."""
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        connection.execute(
            """create schema b; create table b.texts (id int, text text) with (autovacuum_enabled = off);
               alter table b.texts alter column text set storage external;
               insert into b.texts select n, repeat('x', 8000) from generate_series(1, 500) as n;
               delete from b.texts where id % 10 <> 0;"""
        )
        connection.execute("vacuum analyze b.texts")
        item = Operations(bloat_mb=0.5, bloat=1)
        with transaction(connection, contract_of("victorysync")):
            database = Database(connection)
            (measured,) = (b for b in bloat.bloated(database, snapshot(connection), item) if b.name == "b.texts")
            connection.execute("drop extension pgstattuple")
            (found,) = (b for b in bloat.bloated(database, snapshot(connection), item) if b.name == "b.texts")
        assert (found.kind, found.how, measured.how, found.share > 0.6) == ("toast", "estimated", "exact", True)
        assert measured.share - 0.25 < found.share <= measured.share
        limits = "operations.bloat_mb = 0.5\noperations.bloat = 0.5"
        result = judged(connection, "bloat", limits)
        assert [f.key for f in result.findings] == ["b.texts: toast"]
        connection.execute(result.findings[0].remedy.encode())
        connection.execute("analyze b.texts")
        assert judged(connection, "bloat", limits).findings == ()


def called(connection: psycopg.Connection[Any], times: int) -> None:
    """Have the application call a statement so many times: what pgconform's own role does is no traffic."""
    connection.execute("set role service_role")
    for _ in range(times):
        connection.execute("select pg_catalog.count(*) from public.plans")
    connection.execute("reset role")


# Each can be had on one server: the library keeps the functions of earlier versions.
@pytest.mark.parametrize("version", ["1.8", "1.9", "1.10"])
def test_statements_are_judged_once_they_were_called_often_enough(contrib: Server, version: str) -> None:
    limits = "operations.statement_ms = 50\noperations.least_calls = 5\noperations.search_ms = 0.000001"
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        connection.execute("drop extension pg_stat_statements")
        connection.execute(f"create extension pg_stat_statements schema extensions version '{version}'".encode())
        connection.execute("select extensions.pg_stat_statements_reset()")
        connection.execute("select pg_catalog.pg_sleep(0.2)")
        called(connection, 4)
        result = judged(connection, "statements-fast", limits)
        assert (result.verdict, result.findings) == (Verdict.SKIPPED, ())
        since = "since" if version == "1.8" else "in the 0.0 days since"
        assert result.reason.startswith(f"no statement was called 5 times {since} statements are counted, by other")
        assert judged(connection, "searches-fast", limits).verdict is Verdict.SKIPPED
        called(connection, 1)
        assert judged(connection, "statements-fast", limits).verdict is Verdict.PASSED
        for _ in range(5):
            connection.execute("select pg_catalog.pg_sleep(0.1)")
        result = judged(connection, "statements-fast", limits)
        assert (result.verdict, len(result.findings)) == (Verdict.FAILED, 1)
        assert "6 time(s): SELECT pg_catalog.pg_sleep($1)" in result.findings[0].observed


def test_statements_that_the_server_does_not_count_are_not_verified() -> None:
    """Installed, and not preloaded: no grant would help."""
    with server(["victorysync"], "15") as plain, connected(plain.dsn("victorysync")) as connection:
        connection.execute("create extension pg_stat_statements schema extensions")
        result = judged(connection, "statements-fast")
        assert result.verdict is Verdict.BROKEN
        assert result.reason.endswith("; add it to shared_preload_libraries, and restart the server")
        assert "grant" not in result.reason


def test_the_estimate_of_bloat_is_near_what_pgstattuple_measures(contrib: Server) -> None:
    """Within a tenth of the relation, for tables and indexes that are full, half empty, and nearly empty."""
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        connection.execute("create schema b")
        for name, kept in (("full", 1), ("half", 2), ("tenth", 10)):
            connection.execute(
                f"""create table b.{name} (id int, flag bool, text text, amount numeric, empty text)
                      with (autovacuum_enabled = off);
                    insert into b.{name} select n, n % 2 = 0, md5(n::text), n from generate_series(1, 50000) as n;
                    create index on b.{name} (id); create index on b.{name} (text, id);
                    create index on b.{name} (lower(text));
                    delete from b.{name} where id % {kept} <> 0;""".encode()
            )
            connection.execute(f"vacuum analyze b.{name}".encode())
        contract = contract_of("victorysync")
        item = Operations(bloat_mb=0.5, bloat=1)
        with transaction(connection, contract):
            catalog, database = snapshot(connection), Database(connection)
            found = bloat.bloated(database, catalog, item)
            assert len([b for b in found if b.name.startswith("b.")]) == 12
            for relation in found:
                measured = bloat.exact(database, relation, "extensions")
                assert abs(relation.share - measured.share) < 0.1, (relation, measured)


def test_use_is_not_judged_before_there_was_time_for_it(contrib: Server) -> None:
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        result = judged(connection, "index-unused")
        assert result.verdict is Verdict.SKIPPED
        assert "use is judged after 7" in result.reason
        connection.execute("select pg_catalog.pg_stat_reset()")
        connection.execute(FLUSH)
        for check in ("dead-rows", "statistics-fresh"):
            result = judged(connection, check, "operations.least_rows = 250")
            assert result.verdict is Verdict.SKIPPED
            assert "statistics were reset, and these tables were not analyzed since: " in result.reason
            assert "public.calls" in result.reason
            connection.execute("analyze")
            connection.execute(FLUSH)
            assert judged(connection, check, "operations.least_rows = 250").verdict is Verdict.PASSED
            assert judged(connection, check, "operations.least_rows = 100000000").verdict is Verdict.SKIPPED
            connection.execute("select pg_catalog.pg_stat_reset()")
            connection.execute(FLUSH)


def read(connection: psycopg.Connection[Any], table: str, times: int) -> None:
    connection.execute(f"do $$ begin for n in 1..{times} loop perform count(*) from {table}; end loop; end $$".encode())
    connection.execute(FLUSH)


def test_use_is_not_judged_before_there_were_reads(references: Server) -> None:
    limits = "operations.judged_after_days = 0\noperations.least_scans = {}"
    for name, check, table in (
        ("victorysync", "index-unused", "public.calls"),
        ("muva", "vector-index-used", "hotels.policies"),
    ):
        with clone(references, name) as dsn, connected(dsn) as connection:
            connection.execute("create index on public.calls (duration)" if name == "victorysync" else "select 1")
            connection.execute(FLUSH)  # the index's making read the table, too
            connection.execute("select pg_catalog.pg_stat_reset()")
            read(connection, table, 49)
            result = judged(connection, check, limits.format(50), name)
            assert (result.verdict, result.findings) == (Verdict.SKIPPED, ())
            assert "no table with such an index, old enough to be judged, was read 50 times" in result.reason
            read(connection, table, 1)
            assert judged(connection, check, limits.format(50), name).verdict is Verdict.FAILED


def test_checks_pass_beside_the_extensions_that_debian_brings(contrib: Server) -> None:
    """uuid-ossp, amcheck, pgstattuple and pg_stat_statements bring functions, views and grants of their own."""
    looks = [c for c in load().values() if ".schema." in c.module or ".security." in c.module or c.id == "bloat"]
    with clone(contrib, "victorysync") as dsn, connected(dsn) as connection:
        contract = contract_of("victorysync", "operations.bloat_mb = 0.01\noperations.bloat = 1")
        with transaction(connection, contract):
            catalog, today = snapshot(connection), datetime.datetime.now(datetime.UTC).date()
            assert {"uuid-ossp", "amcheck", "pgstattuple", "pg_stat_statements"} <= {e.name for e in catalog.extensions}
            evidence = Evidence(contract, catalog, Database(connection), today)
            results = [evaluate(check, evidence) for check in looks]
        assert {r.check: (r.reason, r.findings) for r in results if r.verdict not in QUIET} == {}
        assert next(r for r in results if r.check == "bloat").verdict is Verdict.PASSED


QUIET = (Verdict.PASSED, Verdict.SKIPPED)


def test_freezing_makes_a_database_young_again(references: Server) -> None:
    with clone(references, "victorysync") as dsn, connected(dsn) as connection:
        for _ in range(300):
            connection.execute("select pg_catalog.txid_current()")
        result = judged(connection, "wraparound-far", "operations.age = 0.0000001")
        (mine,) = (f for f in result.findings if f.object != "other databases")
        connection.execute(mine.remedy.encode())
        after = judged(connection, "wraparound-far", "operations.age = 0.0000001")
        assert [f.object for f in after.findings if f.object != "other databases"] == []
