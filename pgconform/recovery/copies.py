"""Databases of our own that begin as the target is: drills that commit work in them. The target is only read.

A dump of the target is restored into a scratch server, once; every drill then gets its own clone of that database.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pgconform.model import NotVerified
from pgconform.recovery import tools
from pgconform.targets.server import Server, ServerError, find_binaries, prepared, running, start

if TYPE_CHECKING:
    from psycopg import Connection

    from pgconform.catalog import Catalog

SERVERS = (16, 18)  # major versions of the wheel's servers


@dataclass(repr=False)
class Scratch:
    """A server of our own, in which everything may be broken."""

    server: Server
    binaries: Path
    crashed: bool = False  # which emptied every unlogged table of every database

    def crash(self) -> None:
        """Kill all processes of the server at once, as a crash of its machine would, and start it again."""
        import psycopg

        self.crashed = True
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            ours = connection.execute("select pid from pg_catalog.pg_stat_activity")
            pids = [self.server.pid, *(pid for (pid,) in ours)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.stop(immediate=True)  # waits until it is gone
        (self.server.directory / "postmaster.pid").unlink(missing_ok=True)  # a zombie would still count
        self.server = start(self.server.directory, self.binaries)

    def stop(self) -> None:
        self.server.stop(immediate=True)


@dataclass(frozen=True, repr=False)
class Copy:
    """A database on a scratch server. Gone after the drill."""

    scratch: Scratch
    name: str

    @property
    def dsn(self) -> str:
        return self.scratch.server.dsn(self.name)

    def connect(self) -> Connection[Any]:
        """A new session of the superuser, in autocommit mode; whoever asks closes it."""
        import psycopg

        return psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)


@dataclass(frozen=True, repr=False)
class Restored:
    """The database as its dump brought it back: to be read, and cloned. ``size`` is the target's, in bytes."""

    copy: Copy
    size: int
    seconds: float  # of the dump and the restore


class Copies:
    """Copies of one database. Close it to stop the server and remove what was written."""

    def __init__(self, dsn: str, catalog: Catalog, snapshot: str = "") -> None:
        self._dsn, self._catalog, self._snapshot = dsn, catalog, snapshot
        self._stack = ExitStack()
        self._restored: Restored | NotVerified | None = None

    @contextmanager
    def fresh(self) -> Iterator[Copy]:
        """A copy for one drill, as the target is; one at a time. Raises NotVerified where no copy can be made."""
        import psycopg
        from psycopg import sql

        template, name = self.restored().copy, "copy"
        drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        clone = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template.name))
        try:
            with psycopg.connect(template.scratch.server.dsn(), autocommit=True) as connection:
                connection.execute(drop)  # of a drill that was interrupted just then
                connection.execute(clone)
        except psycopg.Error as error:
            why = error.sqlstate or type(error).__name__
            raise NotVerified(f"no copy can be made for a drill on the scratch server ({why})") from None
        try:
            yield Copy(template.scratch, name)
        finally:
            # A drill may have lost the server: what is left goes with it. An error here would hide why the drill ended.
            with (
                suppress(psycopg.Error),
                psycopg.connect(template.scratch.server.dsn(), autocommit=True) as connection,
            ):
                connection.execute(drop)

    def restored(self) -> Restored:
        """The database that all copies are clones of: dumped and restored when first asked for, and again where a drill
        crashed the server and it has unlogged tables, which are empty then.

        Nobody may write into it, or stay connected. Raises NotVerified, each time, where that failed.
        """
        crashed = isinstance(self._restored, Restored) and self._restored.copy.scratch.crashed
        if crashed and any(table.persistence == "u" for table in self._catalog.tables):
            self._stack.close()
            self._restored = None
        if self._restored is None:
            try:
                self._restored = self._restore()
            except (NotVerified, ServerError) as error:
                self._stack.close()
                self._restored = error if isinstance(error, NotVerified) else NotVerified(str(error))
            except BaseException:
                self._stack.close()  # whoever tries again begins anew
                raise
        if isinstance(self._restored, NotVerified):
            raise self._restored
        return self._restored

    def _restore(self) -> Restored:
        version = self._catalog.server.version // 10_000
        binaries = find_binaries(str(next((v for v in SERVERS if v >= version), version)))
        size = tools.size(self._dsn)
        with TemporaryDirectory(prefix="pgc-") as folder:
            tools.need_space(Path(folder), size)
            empty = prepared(f"empty-{sha256(str(binaries).encode()).hexdigest()[:16]}", binaries, lambda _: None)
            scratch = Scratch(self._stack.enter_context(running(bindir=binaries, template=empty)), binaries)
            self._stack.callback(scratch.stop)
            # The server has the original and a drill's clone of it; the dump may be on the same disk.
            shared = Path(folder).stat().st_dev == scratch.server.directory.stat().st_dev
            tools.need_space(scratch.server.directory, (3 if shared else 2) * size)
            copy, dump, started = Copy(scratch, "original"), Path(folder) / "dump", time.monotonic()
            tools.dump(binaries, self._dsn, dump, self._snapshot)
            tools.create(scratch.server.dsn(), copy.name, self._catalog)
            tools.restore(binaries, copy.dsn, dump)
        return Restored(copy, size, time.monotonic() - started)

    def close(self) -> None:
        self._stack.close()
