"""Whole runs, as a user starts them: verdicts, exit statuses, one clear line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgconform.catalogue_of_checks import load
from pgconform.targets.embedded import server
from pgconform.targets.server import Server
from tests.incomplete import CUT, EVERY, told_everywhere
from tests.proving import contract_of

READER = Path(__file__).parent.parent / "pgconform" / "reader.sql"
SMALL = ("-k", "row_security or every_declared_table")  # a few checks, where which ones does not matter


def run(*arguments: str, out: Path, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """``pgconform run`` in a process of its own, in a directory that is not the project's."""
    command = [sys.executable, "-m", "pgconform", "run", f"--out={out}", *arguments]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PGC_", "PYTEST_"))} | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=out, env=env, timeout=timeout, check=False)


def results(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    return document


def verdicts(out: Path) -> dict[tuple[str, str], str]:
    """By check and subject; drills left out, which a live target skips."""
    drills = {check.id for check in load().values() if check.drill}
    return {(r["check"], r["subject"]): r["verdict"] for r in results(out)["results"] if r["check"] not in drills}


def keys(out: Path) -> set[str]:
    return {f"{r['check']}: {f['key']}" for r in results(out)["results"] for f in r["findings"]}


@pytest.fixture(scope="module")
def live() -> Iterator[Server]:
    """A server that the tests of this module may change; not the one that others share."""
    with server(["muva", "victorysync"]) as started:
        yield started


@pytest.fixture(scope="module")
def reader(live: Server) -> str:
    """The least-privileged role of pgconform reader, as a part of a connection string."""
    text = READER.read_text(encoding="utf-8").replace(":password", "'c4n4ry-password'")
    with psycopg.connect(live.dsn("muva"), autocommit=True) as connection:
        connection.execute(text.encode())
    return " user=pgconform_reader password=c4n4ry-password"


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_a_live_run_as_the_reader_gives_the_same_verdicts(live: Server, reader: str, name: str, tmp_path: Path) -> None:
    embedded, other = tmp_path / "embedded", tmp_path / "live"
    embedded.mkdir()
    other.mkdir()
    first = run(f"--contract={name}", out=embedded)
    second = run(f"--contract={name}", f"--target=live:{live.dsn(name)}{reader}", out=other)
    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    assert verdicts(embedded) == verdicts(other)


CHANGES = {
    "row security off": ("victorysync", "alter table public.calls disable row level security",
                         {"row-security-enabled: public.calls", "realtime-row-security: public.calls",
                          "foreign-rows-hidden: public.calls", "strangers-see-nothing: public.calls",
                          "malformed-claims: public.calls"}),
    "orphan": ("victorysync", "set session_replication_role = replica; insert into public.recordings (org_id, call_id,"
               " storage_path, duration) select id, gen_random_uuid(), 'x', 9 from public.organizations order by id"
               " limit 1",
               {"orphans: public.recordings: org_id,call_id"}),
    "another dimension": ("muva", "alter table hotels.client_info add column embedding extensions.vector(1536)",
                          {"vector-columns-dimensioned: hotels.client_info: embedding"}),
    "a chunk deleted": ("muva", "delete from hotels.accommodation_units where ctid = (select ctid from"
                        " hotels.accommodation_units where tenant_id = 'simmerdown' and chunk_index = 1 order by id"
                        " limit 1)",
                        {"chunks-complete: hotels.accommodation_units: chunk_index"}),
    "a superuser": ("muva", "create role intruder superuser login", {"privileged-roles: intruder: SUPERUSER"}),
    "an open policy": ("victorysync", 'drop policy "members read" on public.contacts; create policy "members read" on'
                       " public.contacts for select to authenticated using (true)",
                       {"policy-always-true: public.contacts: \"members read\"", "foreign-rows-hidden: public.contacts",
                        "strangers-see-nothing: public.contacts", "malformed-claims: public.contacts"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_one_change_fails_just_its_checks_and_the_remedy_mends_it(live: Server, change: str, tmp_path: Path) -> None:
    name, statements, expected = CHANGES[change]
    with psycopg.connect(live.dsn(name), autocommit=True) as connection:
        for statement in statements.split("; "):
            connection.execute(statement.encode())
        found = run(f"--contract={name}", f"--target=live:{live.dsn(name)}", out=tmp_path)
        assert found.returncode == 1, found.stdout
        attributes = {k for k in keys(tmp_path) if k.startswith("privileged-roles: intruder")}
        assert keys(tmp_path) - attributes == expected - attributes
        assert bool(attributes) == (change == "a superuser")
        for remedy in dict.fromkeys(f["remedy"] for r in results(tmp_path)["results"] for f in r["findings"]):
            connection.execute("set session_replication_role = origin")
            connection.execute(remedy.encode())
        mended = run(f"--contract={name}", f"--target=live:{live.dsn(name)}", out=tmp_path)
        assert mended.returncode == 0, mended.stdout
        connection.execute("drop role if exists intruder")


TRACES = (
    "select pg_catalog.sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_catalog.pg_stat_all_tables"
    " where schemaname not in ('pg_catalog', 'pg_toast')"
)


def test_a_live_run_leaves_no_trace_and_takes_no_lock_that_disturbs(live: Server, tmp_path: Path) -> None:
    """A writer goes on all the while: had the run locked more than ACCESS SHARE, it would have waited."""
    with psycopg.connect(live.dsn("muva"), autocommit=True) as connection, psycopg.connect(live.dsn("muva")) as writer:
        connection.execute("checkpoint")
        writer.execute("create index on hotels.client_info (contact_name)")  # SHARE lock: conflicts with any writer
        before = connection.execute(TRACES.encode()).fetchone()
        position = connection.execute("select pg_catalog.pg_current_wal_insert_lsn()").fetchone()
        locks = run_and_watch(connection, f"--target=live:{live.dsn('muva')}", "--contract=muva", out=tmp_path)
        after = connection.execute(TRACES.encode()).fetchone()
        assert connection.execute("select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), %s) < 5e4",
                                  position).fetchone() == (True,)  # fmt: skip
        assert after == before
        assert locks == {"AccessShareLock"}
        writer.rollback()


def run_and_watch(connection: psycopg.Connection[Any], *arguments: str, out: Path) -> set[str]:
    """The modes of the locks on relations that sessions of the run were seen to hold."""
    command = [sys.executable, "-m", "pgconform", "run", f"--out={out}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=out)
    seen: set[str] = set()
    while process.poll() is None:
        rows = connection.execute(
            "select distinct l.mode from pg_catalog.pg_locks as l"
            " join pg_catalog.pg_stat_activity as a on a.pid = l.pid"
            " where l.locktype = 'relation' and a.application_name = 'pgconform'"
        ).fetchall()
        seen |= {mode for (mode,) in rows}
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return seen


def test_a_locked_table_is_not_verified_and_the_rest_is_judged(live: Server, tmp_path: Path) -> None:
    contract = altered(tmp_path, "victorysync")
    contract.write_text(contract.read_text(encoding="utf-8") + "\n[limits]\nlock_timeout = 100\n", encoding="utf-8")
    with psycopg.connect(live.dsn("victorysync")) as blocker:
        blocker.execute("lock table public.invoices in access exclusive mode")
        done = run(f"--contract={contract}", f"--target=live:{live.dsn('victorysync')}", out=tmp_path)
    broken = {r["check"]: r for r in results(tmp_path)["results"] if r["verdict"] == "broken"}
    assert done.returncode == 3, done.stdout
    assert {"orphans", "totals-reconcile", "row-security-enabled", "foreign-rows-hidden"} <= set(broken)
    told = {check: json.dumps(r["unverified"]) for check, r in broken.items()}
    # Who measures a schema, or all tables, is not told by the server at which one it had to wait.
    whole = {check for check, text in told.items() if "invoices" not in text and "lock timeout" in text}
    assert whole <= {"sizes-within-limits", "bloat"}
    assert all("invoices" in text for check, text in told.items() if check not in whole)
    assert "public.invoices is locked by another session" in done.stdout
    assert sum(r["verdict"] == "passed" for r in results(tmp_path)["results"]) > 350


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
class TestExitStatus:
    def test_0_conforms(self, live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
        done = run("--contract=muva", f"--target=live:{live.dsn('muva')}", *workers, out=tmp_path)
        assert done.returncode == 0, done.stdout
        assert "exit 0: conforms" in done.stdout

    def test_1_findings(self, live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
        contract = altered(tmp_path, "victorysync", 'name = "victorysync"', 'name = "other"',
                           '[tables."public.plans"]', '[tables."public.nothing_like_it"]')  # fmt: skip
        done = run(f"--contract={contract}", f"--target=live:{live.dsn('victorysync')}", *workers, *SMALL, out=tmp_path)
        assert done.returncode == 1, done.stdout
        assert "tables-exist: public.nothing_like_it" in keys(tmp_path)

    def test_3_not_verified(self, live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
        with psycopg.connect(live.dsn("victorysync"), autocommit=True) as connection:
            connection.execute("create role poor login")
            try:
                dsn = live.dsn("victorysync") + " user=poor"
                done = run("--contract=victorysync", f"--target=live:{dsn}", *workers, "-m", "gate", out=tmp_path)
            finally:
                connection.execute("drop role poor")
        assert done.returncode == 3, done.stdout
        assert "pgconform reader" in done.stdout
        assert results(tmp_path)["counts"]["passed"] > 0

    def test_4_contract_error(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        contract = altered(tmp_path, "muva", "publications", "publications", "[schemas]", "[schemes]")
        done = run(f"--contract={contract}", *workers, out=tmp_path)
        assert done.returncode == 4
        assert "did you mean 'schemas'?" in done.stdout + done.stderr
        assert_short(done)

    def test_4_wrong_target(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        done = run("--target=alive", *workers, out=tmp_path)
        assert done.returncode == 4
        assert "unknown target 'alive'; use one of embedded" in done.stdout + done.stderr
        assert_short(done)

    def test_4_wrong_password(self, live: Server, reader: str, tmp_path: Path, workers: tuple[str, ...]) -> None:
        with DemandingPasswords(live):
            dsn = f"{live.dsn('muva')}{reader}".replace("c4n4ry", "wr0ng")
            done = run("--contract=muva", f"--target=live:{dsn}", EVERY, *workers, out=tmp_path)
        assert done.returncode == 4, done.stdout + done.stderr
        assert "wrong user or password" in done.stdout + done.stderr
        assert_short(done)
        told = told_everywhere(tmp_path, "wrong user or password")
        assert (told["status"], told["reason"]) == (4, told["mistake"])

    def test_5_nothing_examined(self, live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
        contract = tmp_path / "empty.toml"
        superuser = (
            '[roles.privileged]\npostgres = ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"]\n'
        )
        others = 'authenticator = ["BYPASSRLS"]\npgconform_reader = ["BYPASSRLS"]\n'
        contract.write_text(f'name = "empty"\n{superuser}{others}', encoding="utf-8")
        done = run(f"--contract={contract}", f"--target=live:{live.dsn('template1')}", *workers, out=tmp_path)
        assert done.returncode == 5, done.stdout
        assert "nothing to examine for" in done.stdout
        assert {r["verdict"] for r in results(tmp_path)["results"]} <= {"skipped", "passed"}

    def test_75_unreachable(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        target = "--target=live:host=/nowhere dbname=x password=c4n4ry"
        done = run("--contract=muva", target, EVERY, *workers, out=tmp_path)
        assert done.returncode == 75
        assert "cannot be reached" in done.stdout + done.stderr
        assert "c4n4ry" not in done.stdout + done.stderr
        assert_short(done)
        told = told_everywhere(tmp_path, "cannot be reached")
        assert (told["status"], told["reason"]) == (75, told["lost"])
        assert CUT not in (tmp_path / "junit.xml").read_text(encoding="utf-8")

    def test_75_lost_in_the_middle(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        with server(["victorysync"]) as dying:
            command = [sys.executable, "-m", "pgconform", "run", f"--out={tmp_path}", "--contract=victorysync",
                       f"--target=live:{dying.dsn('victorysync')}", EVERY, *workers, "-v", "-v"]  # fmt: skip
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
            )
            assert process.stdout
            for line in process.stdout:
                if "PASSED" in line and "orphans" not in line and "test_references" in line:
                    dying.stop(immediate=True)
                    break
            output = process.communicate(timeout=600)[0]
        assert process.returncode == 75, output
        assert "went away" in output or "cannot be reached" in output
        lost = results(tmp_path)["lost"]
        assert lost
        told = told_everywhere(tmp_path, lost)
        assert told["counts"]["passed"] > 10
        assert CUT not in told["reason"], "it was not we who ended it"


def altered(out: Path, name: str, *pairs: str) -> Path:
    """A copy of a bundled contract with some words replaced."""
    source = Path(__file__).parent.parent / "fixtures" / "contracts" / f"{name}.toml"
    text = source.read_text(encoding="utf-8").replace("file:../databases", f"file:{source.parent.parent}/databases")
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        text = text.replace(old, new)
    path = out / "altered.toml"
    path.write_text(text, encoding="utf-8")
    return path


def assert_short(done: subprocess.CompletedProcess[str]) -> None:
    """One clear line, no traceback; pytest may add a line of its own."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) <= 4, lines
    assert "Traceback" not in done.stdout + done.stderr


class DemandingPasswords:
    """The server asks for passwords while inside: its pg_hba.conf is exchanged and put back."""

    def __init__(self, server: Server) -> None:
        self.path, self.dsn = server.directory / "pg_hba.conf", server.dsn()
        self.text = self.path.read_text(encoding="utf-8")

    def _set(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("select pg_catalog.pg_reload_conf()")
            connection.execute("select pg_catalog.pg_sleep(0.2)")

    def __enter__(self) -> None:
        self._set("local all postgres trust\nlocal all all scram-sha-256\n")

    def __exit__(self, *_: object) -> None:
        self._set(self.text)


def test_nothing_secret_reaches_any_output(live: Server, reader: str, tmp_path: Path) -> None:
    """Canary rows, a canary password and the address are searched for in every file and stream."""
    canary = "canaryrowcontent"
    with psycopg.connect(live.dsn("muva"), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            sql.SQL(
                "insert into hotels.content (tenant_id, source_file, title, content, chunk_index, total_chunks)"
                " values ({c}, {c}, {c}, {c}, 0, 7), ({c}, {c}, {c}, {c}, 1, 8)"
            ).format(c=sql.Literal(canary))
        )
        try:
            dsn = f"{live.dsn('muva')}{reader}"
            done = run("--contract=muva", f"--target=live:{dsn}", "-n", "2", out=tmp_path)
        finally:
            connection.execute("delete from hotels.content where title = %s", (canary,))
    assert done.returncode == 1, done.stdout
    assert len(keys(tmp_path)) >= 4  # tenant, chunks, duplicates, coverage ...
    outputs = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.is_file()}
    outputs |= {"stdout": done.stdout, "stderr": done.stderr}
    assert {"junit.xml", "findings.json"} <= set(outputs)
    for name, text in outputs.items():
        assert canary not in text, name
        assert "c4n4ry" not in text, name
        assert str(live.socket_dir) not in text, name


def test_collecting_needs_no_database(tmp_path: Path) -> None:
    done = run("--collect-only", "--target=live:host=/nowhere", "--contract=muva", out=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d{3} tests collected", done.stdout)


def test_statement_limits_are_set(live: Server) -> None:
    from pgconform.database import begin

    with psycopg.connect(live.dsn("muva"), autocommit=True) as connection:
        begin(connection, contract_of("muva").limits)
        for name in ("statement_timeout", "lock_timeout", "transaction_read_only"):
            row = connection.execute("select pg_catalog.current_setting(%s)", (name,)).fetchone()
            assert row is not None
            assert row[0] not in ("0", "off")


def test_nothing_is_attacked_before_all_that_is_only_read_is_judged(tmp_path: Path) -> None:
    """Undone attempts leave dead rows, and what they do to plans is no fault of the database."""
    done = run("--contract=muva", "--collect-only", "-vv", "-k", "own-rows-writable or search-results", out=tmp_path)
    listed = re.findall(r"<Function (\w+)\[", done.stdout)
    assert listed, done.stderr
    assert listed.index("test_members_can_write_their_own_rows") == len(listed) - 1, listed


def test_a_drill_that_the_selection_leaves_out_is_no_success(tmp_path: Path) -> None:
    done = run("--contract=victorysync", "--drill=restore", "-m", "daily", out=tmp_path)
    assert done.returncode == 3, done.stdout
    why = "--drill names drills, and -m daily leaves all of them out; ask for them in a run of their own, as by -k"
    assert why in results(tmp_path)["reason"]
