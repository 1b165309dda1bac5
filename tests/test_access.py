"""The access report shows what the contract declares beside what sessions can do, and marks just what differs."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from pgconform.reports.access import WIDTH, Matrix, as_json, as_text, status

from pgconform.attacks.access import Cell, observe
from pgconform.checks import LOCKED, Evidence
from pgconform.contract import COMMANDS
from pgconform.database import Database, Outcome
from pgconform.introspect import snapshot
from pgconform.model import Effort
from pgconform.progress import Meter
from pgconform.targets.embedded import server
from pgconform.targets.server import Server
from tests.conftest import Connect
from tests.proving import contract_of, transaction
from tests.test_attacks import state
from tests.test_cli import command
from tests.test_hostile import contract_for, make
from tests.test_run import READER, TRACES

QUICK = Effort.of("quick", "1")


def observed(
    connection: psycopg.Connection[Any], name: str, effort: Effort = QUICK, live: bool = False
) -> tuple[Cell, ...]:
    database = Database(connection)
    today = datetime.datetime.now(datetime.UTC).date()
    writing = None if live else lambda: database
    return observe(Evidence(contract_of(name), snapshot(connection), database, today, writing, effort), Meter())


def differing(cells: tuple[Cell, ...]) -> dict[str, str]:
    """What differs, as 'relation role command': 'declared observed'; what is not verified, as '?'."""
    return {
        f"{c.relation} {c.role} {c.command}": "?" if c.trouble else f"{c.declared} {c.observed}"
        for c in cells if c.differs or c.trouble
    }  # fmt: skip


def contacts(**expected: str) -> dict[str, str]:
    return {f"public.contacts authenticated {command}": f"own {word}" for command, word in expected.items()}


SAYS_YES = (
    "create function auth.yes(uuid) returns boolean language sql stable set search_path = ''"
    " as 'select $1 is not null';"
    "grant execute on all routines in schema auth to anon, authenticated;"
)
MINE = "(select m.org_id from public.org_users as m where m.user_id = (select auth.uid()) and m.is_active)"
FAULTS = {
    "row security off": (
        "victorysync", "alter table public.contacts disable row level security",
        contacts(select="all", insert="all", update="all", delete="all"),
    ),
    "reads everything": (
        "victorysync", 'alter policy "members read" on public.contacts using (true)', contacts(select="all"),
    ),
    "adds to anybody": (
        "victorysync", 'alter policy "members add" on public.contacts with check (true)', contacts(insert="all"),
    ),
    "gives away": (
        "victorysync", f'{SAYS_YES} alter policy "members change" on public.contacts with check (auth.yes(org_id))',
        contacts(update="all"),
    ),
    "takes unseen": (
        "victorysync", f'{SAYS_YES} alter policy "members change" on public.contacts using (auth.yes(org_id))',
        contacts(update="all"),
    ),
    "deletes unseen": (
        "victorysync", 'alter policy "members remove" on public.contacts using (true)', contacts(delete="all"),
    ),
    "own rows refused": (
        "victorysync", 'drop policy "members remove" on public.contacts', contacts(delete="none"),
    ),
    "own rows refused, others pass": (
        "victorysync", f'alter policy "members add" on public.contacts with check (org_id not in {MINE})',
        contacts(insert="foreign"),
    ),
    "some own rows hidden": (
        "victorysync", "create policy less on public.calls as restrictive for select to authenticated"
        " using (duration > 60)", {"public.calls authenticated select": "own some"},
    ),
    "a grant gone": (
        "victorysync", "revoke update on public.contacts from authenticated", contacts(update="none"),
    ),
    "a grant too many, without a policy that lets a row through": (
        "victorysync", "grant delete on public.calls to authenticated", {},
    ),
    "reads own rows of what is the backend's": (
        "victorysync", "grant select on public.webhooks to authenticated;"
        f" create policy p on public.webhooks for select to authenticated using (org_id in {MINE})",
        {"public.webhooks authenticated select": "none own"},
    ),
    "reads all rows of what is the backend's": (
        "victorysync", "grant select on public.webhooks to anon;"
        " create policy p on public.webhooks for select to anon using (true)",
        {"public.webhooks anon select": "none all"},
    ),
    "writes what it cannot read": (
        "victorysync", "revoke select on public.contacts from authenticated", contacts(select="none"),
    ),
    "writes all that it cannot read": (
        "victorysync", f"revoke select on public.contacts from authenticated; {SAYS_YES}"
        ' alter policy "members change" on public.contacts using (auth.yes(org_id)) with check (auth.yes(org_id))',
        contacts(select="none", update="all"),
    ),
    "shared rows hidden": (
        "muva", 'alter policy "everybody reads" on public.sire_content to authenticated using (chunk_index = 0)',
        {"public.sire_content authenticated select": "shared some", "public.sire_content anon select": "shared none"},
    ),
    "shared rows written": (
        "muva", "grant update (content) on public.sire_content to authenticated;"
        " create policy p on public.sire_content for update to authenticated using (true)",
        {"public.sire_content authenticated update": "none shared"},
    ),
    "undeclared": (
        "victorysync", "create table public.left_over as select * from public.contacts;"
        " grant select, insert on public.left_over to anon",
        {"public.left_over anon select": " all", "public.left_over anon insert": " granted"},
    ),
    "nothing to try with": (
        "victorysync", "truncate public.blocked_numbers",
        {f"public.blocked_numbers authenticated {c}": "?" for c in COMMANDS},
    ),
    "gone": (
        "victorysync", "drop table public.blocked_numbers",
        {f"public.blocked_numbers {role} {c}": "?" for role in ("anon", "authenticated", "service_role")
         for c in COMMANDS},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_is_shown_and_nothing_else(connect: Connect, fault: str) -> None:
    name, statements, expected = FAULTS[fault]
    connection = connect(name)
    with transaction(connection, contract_of(name)):
        connection.execute(statements.encode())
        found = differing(observed(connection, name))
    assert found == expected


def test_a_service_under_row_security_is_what_its_policies_let_through(connect: Connect) -> None:
    """One that lets everything through is read; any other is not verified, for nobody signs in as a service."""
    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(
            "alter role service_role nobypassrls; create policy s on public.teams to service_role using (true);"
            f" create policy s on public.queues for select to service_role using (org_id in {MINE})".encode()
        )
        found = differing(observed(connection, "victorysync"))
    queues = {key: word for key, word in found.items() if key.startswith(("public.teams", "public.queues"))}
    none = {f"public.queues service_role {command}": "all none" for command in ("insert", "update", "delete")}
    assert queues == {"public.queues service_role select": "?"} | none


def test_a_difference_says_who_could_what(connect: Connect) -> None:
    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute("alter table public.contacts disable row level security")
        why = {c.command: c.why for c in observed(connection, "victorysync") if c.differs}
    assert re.fullmatch(r"\w.* sees \d+ row\(s\) that are not its own", why["select"])
    assert re.fullmatch(r"\w.* could delete rows that are not its own", why["delete"])


@pytest.mark.parametrize("effort", ["quick", "default"])
def test_both_references_are_as_declared_and_left_as_they_were(connect: Connect, effort: str) -> None:
    for name in ("muva", "victorysync"):
        connection = connect(name)
        before = state(connection)
        with transaction(connection, contract_of(name)):
            cells = observed(connection, name, Effort.of(effort, "1"))
        assert differing(cells) == {}
        assert len(cells) == len({(c.relation, c.role, c.command) for c in cells}) > 140
        own = {(c.role, c.command) for c in cells if c.observed == "own"}
        assert {("authenticated", command) for command in COMMANDS} <= own
        assert state(connection) == before


def test_what_cannot_be_looked_at_is_told_and_hides_nothing_else(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relation that another session holds locked, and an error of our own."""

    def broken(*_: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr("pgconform.attacks.access.attack", broken)
    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
        catalog = msgspec.structs.replace(snapshot(connection), unseen=("public.plans",))
        evidence = Evidence(contract_of("victorysync"), catalog, database, today, lambda: database, QUICK)
        cells = observe(evidence, Meter())
    locked = {c.trouble for c in cells if c.relation == "public.plans"}
    assert locked == {LOCKED.format("public.plans")}
    ours = [c for c in cells if "pgconform's own error" in c.trouble]
    assert {c.role for c in ours} == {"authenticated"}
    assert len(cells) == 444
    assert {c.observed for c in cells if not c.trouble} == {"none", "all"}


def test_the_same_seed_observes_by_the_same_attempts(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    attempt = Database.attempt

    def spied(self: Database, role: str, settings: Any, command: Any, after: Any = None) -> Outcome:
        asked[-1].append(f"{role} {settings} {command}")
        return attempt(self, role, settings, command, after)

    monkeypatch.setattr(Database, "attempt", spied)
    for seed in ("7", "7", "8"):
        asked.append([])
        with transaction(connect("muva"), contract_of("muva")):
            observed(connect("muva"), "muva", Effort.of("quick", seed))
    assert asked[0] == asked[1] != asked[2]


def test_without_writing_only_what_sessions_see_is_observed(connect: Connect) -> None:
    connection = connect("victorysync")
    with transaction(connection, contract_of("victorysync")):
        connection.execute(
            "alter table public.contacts disable row level security; grant delete on public.calls to anon"
        )
        cells = observed(connection, "victorysync", live=True)
    assert differing(cells) == contacts(select="all") | {"public.calls anon delete": "none granted"}
    clients = {c.observed for c in cells if c.command != "select" and c.role != "service_role"}
    assert clients == {"granted", "none"}


@pytest.fixture(scope="module")
def live() -> Iterator[Server]:
    with server(["muva", "victorysync"]) as started:
        text = READER.read_text(encoding="utf-8").replace(":password", "'c4n4ry-password'")
        with psycopg.connect(started.dsn("muva"), autocommit=True) as connection:
            connection.execute(text.encode())
        yield started


def access(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command("access", *arguments, PGC_TARGET="", PGC_CONTRACT="", PGC_EFFORT="", PGC_SEED="")


def test_the_command_prints_one_line_a_relation() -> None:
    done = access("--effort=quick")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "exit 0: all 588 permissions are as declared"
    assert max(map(len, lines)) <= WIDTH
    for name in ("muva", "victorysync"):
        for relation in contract_of(name).tables:
            assert sum(line.startswith(f"{relation} ") for line in lines) == 1


def test_a_live_target_is_read_and_not_written(live: Server) -> None:
    dsn = f"{live.dsn('muva')} user=pgconform_reader password=c4n4ry-password"
    with psycopg.connect(live.dsn("muva"), autocommit=True) as connection:
        connection.execute("checkpoint")
        before = connection.execute(TRACES.encode()).fetchone()
        position = connection.execute("select pg_catalog.pg_current_wal_insert_lsn()").fetchone()
        done = access("--contract=muva", f"--target=live:{dsn}", "--format=json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert connection.execute(TRACES.encode()).fetchone() == before
        assert connection.execute("select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), %s) < 5e4",
                                  position).fetchone() == (True,)  # fmt: skip
        document = json.loads(done.stdout)
        assert (document["status"], document["contracts"][0]["attempts"]) == (0, 0)
        assert document["reason"] == "all 144 permissions are as declared, 48 of them by the privileges alone"
        connection.execute("alter table hotels.policies disable row level security")
        try:
            done = access("--contract=muva", f"--target=live:{dsn}")
        finally:
            connection.execute("alter table hotels.policies enable row level security")
    assert done.returncode == 1, done.stdout
    assert re.search(r"^hotels\.policies +own -> all ! +granted +granted +granted", done.stdout, re.M)
    assert "nothing was written" in done.stdout
    assert done.stdout.splitlines()[-1] == "exit 1: 2 of 144 permissions are not as declared"
    assert "c4n4ry" not in done.stdout + done.stderr


def test_what_the_login_may_not_ask_is_not_verified(live: Server) -> None:
    with psycopg.connect(live.dsn("victorysync"), autocommit=True) as connection:
        connection.execute("create role poor login")
    done = access("--contract=victorysync", f"--target=live:{live.dsn('victorysync')} user=poor")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "pgconform reader" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (["--contract=nothing"], 4, "bundled: muva, victorysync"),
    (["--contract=muva", "--effort=heroic"], 4, "unknown effort 'heroic'; use one of quick, default, nightly"),
    (["--contract=muva", "--target=moon"], 4, "unknown target 'moon'"),
    (["--target=live:host=/nowhere"], 4, "target live is one database"),
    (["--contract=muva", "--format=xml"], 4, "invalid choice"),
    (["--contract=muva", "--target=live:host=/nowhere password=c4n4ry"], 75, "is the server up"),
])  # fmt: skip
def test_mistakes_are_one_clear_line(arguments: list[str], status: int, said: str) -> None:
    done = access(*arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "c4n4ry" not in done.stdout + done.stderr


def test_the_table_stays_readable_whatever_differs_and_however_things_are_called() -> None:
    """Roles that do not fit beside the others come below them; a name cannot break a line."""
    names = [f'public."{"long " * 12}{n}"' for n in range(44)] + ['public."line\nbreak"']
    cells = tuple(
        Cell(name, role, command, "shared", "foreign", "somebody could")
        for name in names for role in ("anon", "authenticated", "service_role") for command in COMMANDS
    )  # fmt: skip
    made = [Matrix("muva", "PostgreSQL 16", cells)]
    text = as_text(made, QUICK)
    table = text.partition("not as declared:")[0].splitlines()
    assert max(map(len, table)) <= WIDTH
    assert sum("shared -> foreign !" in line for line in table) == 45 * 3
    assert sum(line.startswith('public."line\\nbreak" ') for line in table) == 3
    assert "... and 520 more: --format=json has all" in text
    assert status(made) == (1, "540 of 540 permissions are not as declared")
    assert len(json.loads(as_json(made, QUICK))["contracts"][0]["permissions"]) == 540


@pytest.mark.parametrize(("cells", "code"), [
    ((Cell("public.t", "anon", "select", "own", "own"),), 0),
    ((Cell("public.t", "anon", "select", "own", "at most own"),), 0),
    ((Cell("public.t", "anon", "select", "all", "at most own"),), 1),
    ((Cell("public.t", "anon", "select", "", "none"),), 0),
    ((Cell("public.t", "anon", "insert", "none", "granted"),), 1),
    ((Cell("public.t", "anon", "insert", "own", "untried", trouble="empty"),), 3),
    ((Cell("public.t", "anon", "insert", "own", "untried", trouble="empty"),
      Cell("public.t", "anon", "select", "own", "all")), 1),
    ((), 5),
])  # fmt: skip
def test_the_exit_status_follows_from_the_cells(cells: tuple[Cell, ...], code: int) -> None:
    assert status([Matrix("muva", "", cells)])[0] == code


def test_any_name_and_rows_of_a_parent_will_do(references: Server) -> None:
    """A table of members, rows of tenants, rows of a parent; names that are keywords or hold quotes."""
    names = ["s", "select", 'a "b"', "Rows", "child", "tenant", "usr", "unit", "parent"]
    contract = contract_for(names)
    with psycopg.connect(references.dsn(), autocommit=True) as connection, transaction(connection, contract):
        make(connection, names, contract)
        database, today = Database(connection), datetime.datetime.now(datetime.UTC).date()
        cells = observe(Evidence(contract, snapshot(connection), database, today, lambda: database, QUICK), Meter())
    assert differing(cells) == {}
