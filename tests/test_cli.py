"""The commands besides run: up, build, explain; and a pooler between a live run and its database."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgconform.commands.typed import said
from pgconform.targets.embedded import server
from pgconform.targets.server import Server, running

PGCONFORM = [sys.executable, "-m", "pgconform"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PGC_DSN")} | environment
    return subprocess.run([*PGCONFORM, *arguments], capture_output=True, text=True, env=env, check=False)


def test_up_prints_an_address_and_stops_when_asked(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PGCONFORM, "up", "victorysync"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout
        address = up.stdout.readline().strip()
        socket_dir = Path(re.findall(r"host=([^&]+)", address)[0])
        done = subprocess.run(
            [*PGCONFORM, "run", "--contract=victorysync", f"--target=live:{address}", f"--out={tmp_path}", "-mgate"],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=120) == 0
        assert done.returncode == 0, done.stdout
    assert not socket_dir.exists()


def test_up_is_swept_up_after_a_kill() -> None:
    with subprocess.Popen(
        [*PGCONFORM, "up", "muva"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as up:
        assert up.stdout
        address = up.stdout.readline().strip()
        with psycopg.connect(address) as connection:
            row = connection.execute(
                "select pg_catalog.pg_postmaster_start_time(), pg_catalog.current_setting('data_directory')"
            )
            data = Path(str((row.fetchone() or ("", ""))[1]))
        up.kill()
    assert data.exists()
    with running():
        pass
    assert not data.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(address).close()


@pytest.fixture(scope="module")
def empty() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.mark.parametrize("name", ["muva", "victorysync"])
def test_build_loads_a_reference_database_elsewhere(empty: Server, name: str, tmp_path: Path) -> None:
    with psycopg.connect(empty.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    done = command("build", name, f"--dsn={empty.dsn(name)}", "--rows=0.5", "--seed=7")
    assert done.returncode == 0, done.stderr
    checked = command("run", f"--contract={name}", f"--target=live:{empty.dsn(name)}", f"--out={tmp_path}")
    assert checked.returncode == 0, checked.stdout
    again = command("build", name, f"--dsn={empty.dsn(name)}")
    assert again.returncode == 4
    assert again.stderr.startswith("pgconform: the database is not empty")
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["up", "nothing"], 4, "muva"),
        (["build", "muva", "--dsn=host=/nowhere password=c4n4ry"], 75, "is the server up"),
        (["build", "muva", "--dsn=not a dsn"], 4, "the connection string is not valid"),
        (["build", "muva", "--dsn=host=127.0.0.1 port=none"], 4, "the port is not a number"),
        (["init", "postgresql://u:c4n4ry@h/x"], 4, "an address is given by --dsn=URI, or --target=live:URI"),
        (["init", "host=h dbname=x password=c4n4ry"], 4, "an address is given by --dsn=URI, or --target=live:URI"),
        (["access", "--dsn=postgresql://u:c4n4ry@h/x"], 4, "unknown option --dsn; an address is given by"),
        (["explain", "postgresql://u:c4n4ry@h/x"], 4, "no check '(an address)'"),
        (["fleet", "postgres://u:c4n4ry@h/x"], 4, "(an address): cannot be read"),
        (["run", "postgresql://u:c4n4ry@h/x"], 4, "an address is given by --target=live:URI, or by"),
        (["run", "--contract=postgresql://u:c4n4ry@h/x"], 4, "(an address): no such file and no bundled contract"),
        (["explain", "row-security-enabld"], 4, "did you mean 'row-security-enabled'?"),
        (["up", "muva", "--version=9"], 4, "use 16 or 18"),
        (["wipe"], 4, "invalid choice"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], status: int, said: str) -> None:
    done = command(*arguments)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "c4n4ry" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus=c4n4ry", "c4n4ry"], "unknown option --bogus; nearest: --out, --verbose; "),
        (["--contrakt=c4n4ry"], "unknown option --contrakt; nearest: --contract, "),
        (["--dsn=c4n4ry"], "unknown option --dsn; nearest: --target; "),
        (["-Z"], "unknown option -Z; known: --contract, --target, "),
        (["-n"], "argument -n/--numprocesses: expected one argument; "),
    ],
)
def test_a_run_that_is_typed_wrongly_is_answered_in_one_line(arguments: list[str], said: str) -> None:
    done = command("run", "--contract=muva", *arguments)
    (line,) = done.stderr.split("\n\n")[0].splitlines()
    assert (done.returncode, done.stdout) == (4, "")
    assert line.startswith(f"ERROR: {said}")
    assert line.endswith("see pgconform run --help")
    assert "c4n4ry" not in done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "distributed"])
def test_what_cannot_be_reached_is_said_once(tmp_path: Path, workers: tuple[str, ...]) -> None:
    asked = ["--contract=muva", f"--target=live:host={tmp_path}", f"--out={tmp_path}", "--history=none"]
    done = command("run", *asked, *workers)
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("cannot be reached"), said.count("outcomes")) == (75, 1, 0)


def test_scripts_of_the_project_take_no_unknown_argument() -> None:
    """One that is asked for help must not begin to write."""
    for argument, status in (("--help", 0), ("--hlep", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "tests.remedies", argument], capture_output=True, text=True, check=False,
            cwd=Path(__file__).parent.parent, timeout=120,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "usage: python -m tests.remedies [-h]" in done.stdout + done.stderr


def test_explain_tells_obligation_reason_and_rows() -> None:
    done = command("explain", "policy-always-true")
    assert done.returncode == 0
    assert "vs-14" in done.stdout
    assert "Permissive policies add up" in done.stdout
    assert len(command("explain", "all").stdout.splitlines()) > 80


BOUNCER = """
[databases]
app = host={host} port=5432 user=postgres dbname=victorysync pool_size=4
[pgbouncer]
listen_addr =
unix_socket_dir = {home}
listen_port = 6432
auth_type = any
pool_mode = transaction
logfile = {home}/log
pidfile = {home}/pid
"""


def test_a_pooler_that_hands_out_transactions_is_no_obstacle(tmp_path: Path) -> None:
    """pgbouncer in transaction mode: no prepared statement, no setting that outlives the transaction."""
    bouncer = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    assert bouncer, "apt-get install pgbouncer"
    with server(["victorysync"]) as started, tempfile.TemporaryDirectory(prefix="pgb-") as place:
        home, account = Path(place), started.directory.owner()  # pgbouncer refuses to run as root, too
        home.chmod(0o777)
        (home / "ini").write_text(BOUNCER.format(host=started.socket_dir, home=home))
        as_account = ["-u", account] if os.geteuid() == 0 else []
        pooler = subprocess.Popen([bouncer, "-q", *as_account, str(home / "ini")], start_new_session=True)
        try:
            for _ in range(100):
                if (home / ".s.PGSQL.6432").exists():
                    break
                time.sleep(0.05)
            dsn = f"host={home} port=6432 dbname=app user=postgres"
            for extra in ((), ("-n", "2")):
                done = command("run", "--contract=victorysync", f"--target=live:{dsn}", f"--out={tmp_path}", *extra)
                assert done.returncode == 0, done.stdout
            with psycopg.connect(dsn, autocommit=True) as connection:
                row = connection.execute("select pg_catalog.current_setting('statement_timeout')").fetchone()
                assert row == ("0",)
        finally:
            pooler.terminate()
            pooler.wait()


def test_bench_keeps_a_baseline_and_compares_with_it(tmp_path: Path) -> None:
    asked = ["bench", "--contract=muva", "--queries=10", "--clients=1", "--no-curves", f"--baseline={tmp_path}"]
    missing = command(*asked, "--compare")
    assert (missing.returncode, missing.stdout) == (4, "")
    assert missing.stderr == f"pgconform: {tmp_path}/muva.json: no baseline there; make one with --update-baseline\n"
    made = command(*asked, "--update-baseline", f"--history={tmp_path}/history")
    assert (made.returncode, made.stderr) == (0, f"the baseline of muva is {tmp_path}/muva.json\n")
    assert re.search(r" 1\.000 .*public\.match_hotels_documents, smallest tenant", made.stdout)
    trends = command("history", "search of", f"--history={tmp_path}/history").stdout
    assert "search of public.match_hotels_documents, smallest tenant" in trends
    done = command(*asked, "--compare", "--format=json")
    (told,) = json.loads(done.stdout)
    assert (done.returncode, told["problems"], told["unverified"]) == (0, [], {})
    assert done.stderr == f"muva: nothing is worse than in {tmp_path}/muva.json\n"
    kept = (tmp_path / "muva.json").read_bytes()
    cut = command(*asked, "--update-baseline", "--seconds=0.000001")
    assert cut.returncode == 3
    assert cut.stderr == "the baseline of muva is not updated: it was not measured to the end\n"
    assert (tmp_path / "muva.json").read_bytes() == kept


def test_bench_measures_what_a_command_fills_an_empty_database_with() -> None:
    fill = f'{sys.executable} -m pgconform build muva --rows=0.5 --seed=7 --dsn="$PGC_DSN" >&2'
    asked = ["bench", "--contract=muva", "--queries=10", "--clients=1", "--no-curves", "--format=json"]
    done = command(*asked, f"--prepare={fill}")
    (told,) = json.loads(done.stdout)
    assert (done.returncode, told["problems"], told["unverified"]) == (0, [], {}), done.stderr
    assert command(*asked, "--prepare=false").returncode == 4


def test_bench_says_what_it_takes() -> None:
    done = command("bench", "--contract=victorysync", "--target=live:host=/nowhere")  # which it need not open
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (5, "", 1)
    assert done.stderr.startswith("contract victorysync declares no search, ")
    assert '[functions."schema.name"], or add [queries.NAME]' in done.stderr
    assert command("bench", "--contract=victorysync", "--format=json").stdout == "[]\n"
    assert "--queries: wanted 10 to" in command("bench", "--queries=3").stderr


REFUSED = {
    "create role crowded login connection limit 0": ("crowded", "", 75, "too many connections"),
    "create role outside login; revoke connect on database guarded from public": (
        "outside", "", 4, "the role may not connect to the database; grant connect on it",
    ),
    "": ("postgres", " options='-c nosuch=1'", 4, "it sets a parameter that the server does not take"),
}  # fmt: skip


@pytest.mark.parametrize("before", REFUSED)
def test_a_server_that_refuses_is_understood(empty: Server, before: str) -> None:
    """Trying again helps where it has no room (75), and nowhere else (4)."""
    role, more, status, said = REFUSED[before]
    with psycopg.connect(empty.dsn(), autocommit=True) as connection:
        connection.execute("create database guarded")
        try:
            connection.execute(before.encode() or b"select 1")
            done = command("init", f"--dsn={empty.dsn('guarded')} user={role}{more}")
        finally:
            connection.execute("drop database guarded")
            connection.execute("drop role if exists crowded, outside")
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
    assert said in done.stderr


def test_workers_that_are_not_installed_are_named() -> None:
    told = said("pgconform run: error: unrecognized arguments: -n 2", ["--contract"])
    assert told == "-n needs pytest-xdist: pip install 'pgconform[parallel]'"
