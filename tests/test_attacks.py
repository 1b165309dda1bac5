"""Attacks leave nothing behind, are the same for the same seed, and print what came through as a script that works."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgconform import sequences
from pgconform.catalogue_of_checks import load
from pgconform.checks import COPIED, DRILL, Evidence, evaluate
from pgconform.database import Database, Outcome
from pgconform.introspect import snapshot
from pgconform.model import Effort, Result
from pgconform.targets.embedded import server
from pgconform.targets.server import Server, find_binaries
from tests.conftest import Connect
from tests.proving import FAULTS, contract_of, read, transaction
from tests.test_run import results, run

DRILLS = [check for check in load().values() if check.drill and "copies" not in check.asks]
ON_COPIES = [check for check in load().values() if check.drill and "copies" in check.asks]
OPEN = FAULTS / "foreign-rows-unwritable" / "moves-away.sql"

TABLES = """
select n.nspname, c.relname from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1, 2
"""
CHECKSUM = "select pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(r::text, 0)::numeric) from {} as r"
LEFTOVERS = """
select (select pg_catalog.count(*) from pg_catalog.pg_locks where locktype = 'advisory'),
       (select pg_catalog.count(*) from pg_catalog.pg_prepared_statements),
       current_user, coalesce(pg_catalog.current_setting('request.jwt.claims', true), ''),
       pg_catalog.current_setting('row_security'),
       (select pg_catalog.count(*) from pg_catalog.pg_largeobject_metadata),
       (select pg_catalog.count(*) from pg_catalog.pg_class where relname = 'kept')
"""
SEQUENCES = "select schemaname, sequencename, last_value from pg_catalog.pg_sequences order by 1, 2"


def state(connection: psycopg.Connection[Any]) -> list[Any]:
    """A checksum of every table's rows, whatever their order, and the value of every sequence."""
    found: list[Any] = connection.execute(SEQUENCES).fetchall()
    for name in connection.execute(TABLES.encode()).fetchall():
        found.append((name, connection.execute(sql.SQL(CHECKSUM).format(sql.Identifier(*name))).fetchone()))
    return found


def drilled(connection: psycopg.Connection[Any], name: str, effort: Effort, only: str = "") -> list[Result]:
    contract, database = contract_of(name), Database(connection)
    today = datetime.datetime.now(datetime.UTC).date()
    evidence = Evidence(contract, snapshot(connection), database, today, lambda: database, effort)
    return [evaluate(check, evidence) for check in DRILLS if only in ("", check.id)]


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_attacks_leave_nothing_behind(connect: Connect, name: str) -> None:
    """Neither rows nor what outlives a rollback, nor anything of one attempt for the next."""
    connection = connect(name)
    before = state(connection)
    with transaction(connection, contract_of(name)):
        clean = connection.execute(LEFTOVERS.encode()).fetchall()
        judged = drilled(connection, name, Effort.of("quick", "1"))
        assert connection.execute(LEFTOVERS.encode()).fetchall() == clean
    assert {str(r.verdict) for r in judged} == {"passed"}
    assert state(connection) == before


CLINGING = """
create function auth.cling(org uuid) returns void language plpgsql security definer set search_path = pg_temp as $$
begin
  perform pg_advisory_lock(7), set_config('request.jwt.claims', '{"sub": "x"}', false);
  perform set_config('role', 'none', false);
  execute 'prepare kept as select 1';
  create temporary table kept as select 1;
end
$$;
grant execute on function auth.cling(uuid) to authenticated
"""


def test_nothing_of_one_attempt_is_left_for_the_next(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that locks, sets and prepares for the whole session, called again and again."""
    seen: list[Any] = []
    attempt = Database.attempt

    def spied(self: Database, role: str, settings: Any, command: Any, after: Any = None) -> Outcome:
        outcome = attempt(self, role, settings, command, after)
        seen.append((outcome.passed, self.connection.execute(LEFTOVERS.encode()).fetchall()))
        return outcome

    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(CLINGING.encode())
        clean = connection.execute(LEFTOVERS.encode()).fetchall()
        monkeypatch.setattr(Database, "attempt", spied)
        drilled(connection, "victorysync", Effort.of("quick", "1"), "functions-keep-tenants")
    assert any(passed for passed, _ in seen)
    assert all(left == clean for _, left in seen)


def test_the_same_seed_makes_the_same_attempts(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    attempt = Database.attempt

    def spied(self: Database, role: str, settings: Any, command: Any, after: Any = None) -> Outcome:
        asked[-1].append(f"{role} {settings} {command}")
        return attempt(self, role, settings, command, after)

    monkeypatch.setattr(Database, "attempt", spied)
    for seed in ("7", "7", "8"):
        asked.append([])
        with transaction(connect("muva"), contract_of("muva")):
            drilled(connect("muva"), "muva", Effort.of("default", seed))
    assert asked[0] == asked[1] != asked[2]
    assert len(asked[0]) > 1000


def test_a_script_shows_what_came_through(connect: Connect, references: Server) -> None:
    """Run by psql in a database with the fault, it touches the rows that the finding says, and rolls back."""
    fault, connection = read(OPEN), connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(fault.sql.encode())
        found = [f for r in drilled(connection, "victorysync", Effort.of("default", "1")) for f in r.findings]
    assert [f.key for f in found] == ["public.contacts: move all"]
    touched = re.search(r"\((\d+) touched\)", found[0].observed)
    assert touched
    script = found[0].script.replace("begin;", f"begin;\n{fault.sql}", 1)
    command = [str(find_binaries("16") / "psql"), "-X", "-v", "ON_ERROR_STOP=1", references.dsn("victorysync")]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"UPDATE {touched[1]}" in done.stdout
    assert done.stdout.rstrip().endswith("ROLLBACK")


@pytest.mark.parametrize(
    ("fault", "check", "wanted"),
    [
        ("access-follows-membership/copied-deletes", "access-follows-membership", "DELETE 140"),
        ("access-follows-membership/kept-deletes", "access-follows-membership", "DELETE 1\n"),
        ("clients-stay-clients/taken-on", "clients-stay-clients", "\n t\n"),
        ("clients-stay-clients/sets-back", "clients-stay-clients", "\n setval \n"),
    ],
)
def test_a_script_of_several_steps_shows_it(
    connect: Connect, references: Server, fault: str, check: str, wanted: str
) -> None:
    connection, broken = connect("victorysync"), read(FAULTS / f"{fault}.sql")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(broken.sql.encode())
        found = [f for r in drilled(connection, "victorysync", Effort.of("quick", "1"), check) for f in r.findings]
    assert len(found) == 1
    script = found[0].script.replace("begin;", f"begin;\n{broken.sql}", 1)
    command = [str(find_binaries("16") / "psql"), "-X", "-v", "ON_ERROR_STOP=1", references.dsn("victorysync")]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout
    assert done.stdout.rstrip().endswith("ROLLBACK")


def test_drills_are_not_run_on_a_live_target_and_listed(tmp_path: Path) -> None:
    with server(["muva"]) as started:
        done = run("--contract=muva", f"--target=live:{started.dsn('muva')}", out=tmp_path)
    assert done.returncode == 0, done.stdout
    contract = contract_of("muva")
    declared = {check.id for check in [*DRILLS, *ON_COPIES] if not check.by_contract or check.subjects(contract)}
    skipped = {r["check"] for r in results(tmp_path)["results"] if r["reason"] == DRILL}
    assert skipped == {check.id for check in DRILLS} & declared
    line = next(line for line in done.stdout.splitlines() if "a live target is never written" in line)
    assert all(id in line for id in skipped)
    unasked = next(line for line in done.stdout.splitlines() if "unless asked for by --drill=restore" in line)
    told = {r["check"] for r in results(tmp_path)["results"] if r["reason"] == COPIED}
    assert told == {check.id for check in ON_COPIES if check.id in unasked} == {c.id for c in ON_COPIES} & declared
    assert "restore-complete" in told
    assert "archive-exact" not in told, "the contract declares no procedure that it could run"


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_run_says_how_many_attempts_it_made_and_what_replays_them(workers: tuple[str, ...], tmp_path: Path) -> None:
    """Each drill's number crosses from the worker; checks that attack nobody have none."""
    chosen = ("-k", "foreign-rows-unreadable or own-rows-writable or tables-exist")
    done = run("--contract=muva", "--effort=quick", "--seed=7", *chosen, *workers, out=tmp_path)
    assert done.returncode == 0, done.stdout
    written = results(tmp_path)
    assert (written["effort"], written["seed"]) == ("quick", 7)
    made = {r["check"]: r["attempts"] for r in written["results"]}
    assert {check for check, number in made.items() if number} == {"foreign-rows-unreadable", "own-rows-writable"}
    told = re.findall(r"^attacks: (\S+) attempts in \S+ s \(\S+/s\), (.*)$", done.stdout, re.M)
    assert told == [(f"{sum(made.values()):,}", "effort quick, seed 7; --seed=7 replays them")]


@pytest.mark.parametrize(("arguments", "said"), [
    (("--effort=heroic",), "unknown effort 'heroic'; use one of quick, default, nightly"),
    (("--seed=x",), "the seed is a whole number, not 'x'"),
])  # fmt: skip
def test_mistakes_in_effort_and_seed_are_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run("--contract=muva", *arguments, out=tmp_path)
    assert done.returncode == 4
    assert said in done.stdout + done.stderr


OWN_VIEW = """
alter table public.contacts rename to all_contacts;
create view public.contacts with (security_barrier) as select c.* from public.all_contacts as c where c.org_id in (
  select m.org_id from public.org_users as m where m.user_id = (select auth.uid()) and m.is_active);
grant select, insert, update, delete on public.contacts to authenticated;
alter view public.contacts set (check_option = {})
"""


def test_a_view_that_shows_each_caller_its_own_is_attacked(connect: Connect) -> None:
    """To a session that sees everything it shows nothing: the rows to aim at are what members see."""
    found: dict[str, set[str]] = {}
    connection = connect("victorysync")
    for option in ("local", "none"):
        with transaction(connection, contract_of("victorysync")):
            connection.execute(OWN_VIEW.format(option).replace("check_option = none", "security_barrier").encode())
            judged = drilled(connection, "victorysync", Effort.of("quick", "1"), "foreign-rows-unwritable")
            found[option] = {f.key for r in judged for f in r.findings}
    assert found["local"] == set()
    assert {"public.contacts: insert", "public.contacts: move"} <= found["none"]


LENDING = """
create function auth.join_org(org uuid) returns void language sql volatile security definer set search_path = pg_temp as
  'insert into public.org_users (user_id, org_id, role) values (auth.uid(), org, ''viewer'') on conflict do nothing';
create function auth.create_org(name text) returns void language plpgsql
  security definer set search_path = pg_temp as $$
declare made uuid := gen_random_uuid();
begin
  insert into public.organizations (id, name, created_by) values (made, name, auth.uid());
  insert into public.org_users (user_id, org_id, role) values (auth.uid(), made, 'owner');
end
$$;
grant execute on all routines in schema auth to authenticated
"""


def test_joining_what_is_there_is_a_breach_and_founding_is_not(connect: Connect) -> None:
    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(LENDING.encode())
        judged = drilled(connection, "victorysync", Effort.of("default", "1"), "functions-keep-tenants")
    assert {f.key.partition(": ")[2] for r in judged for f in r.findings if "join_org" in f.object} >= {"joins"}
    assert not [f.key for r in judged for f in r.findings if "create_org" in f.object]


SERIAL = """
alter table public.contacts add column number bigserial;
create unique index on public.contacts (number);
create sequence public.unused start 7;
grant usage on sequence public.contacts_number_seq to authenticated
"""
RAW = """
select s.last_value, s.is_called from public.contacts_number_seq as s
union all select s.last_value, s.is_called from public.unused as s
"""


def test_sequences_that_attacks_advance_are_set_back(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of rows draw new keys, which no rollback undoes."""
    connection = connect("victorysync")
    moved: list[bool] = []
    restore = sequences.restore

    def spied(evidence: Evidence, before: sequences.Values) -> str:
        moved.append(sequences.values(evidence) != before)
        return restore(evidence, before)

    monkeypatch.setattr(sequences, "restore", spied)
    with transaction(connection, contract_of("victorysync")):
        connection.execute(SERIAL.encode())
        before = connection.execute(RAW.encode()).fetchall()
        drilled(connection, "victorysync", Effort.of("quick", "1"), "own-rows-writable")
        assert connection.execute(RAW.encode()).fetchall() == before
    assert moved == [True]


@pytest.mark.parametrize(
    ("fault", "gives"),
    [
        ("definer-trigger", ["alter function auth.stamp() security invoker;"]),
        ("queue-beside", ['alter function auth."Stamp {it}"() security invoker;']),
        ("queue", []),
    ],
)
def test_a_remedy_takes_rights_only_where_own_writes_do_without(connect: Connect, fault: str, gives: list[str]) -> None:
    """It was tried and undone; what is for people to decide says what would have been refused."""
    connection = connect("victorysync")
    path = FAULTS / "writes-stay-in-tenant" / f"{fault}.sql"
    with transaction(connection, contract_of("victorysync")):
        connection.execute(path.read_bytes())
        definers = "select pg_catalog.count(*) from pg_catalog.pg_proc where prosecdef"
        before = connection.execute(definers).fetchone()
        (result,) = drilled(connection, "victorysync", Effort.of("quick", "1"), "writes-stay-in-tenant")
        assert connection.execute(definers).fetchone() == before
    (remedy,) = (finding.remedy for finding in result.findings)
    assert [line for line in remedy.splitlines() if not line.startswith("-- ")] == gives
    assert ("cannot update own rows: permission denied for" in remedy) == (not gives)
