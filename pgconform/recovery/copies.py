"""Databases of our own that begin as the target is: drills that commit work in them. The target is only read.

A dump of the target is restored into a scratch server, once; every drill then gets its own clone of that database.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pgconform.model import Drill, NotVerified
from pgconform.recovery import tools
from pgconform.targets.server import Server, ServerError, find_binaries, prepared, running, start

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

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

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new private directory for the time of the block. It stands beside the server's data: where we are killed,
        the next run removes it with them."""
        home = self.server.directory.parent
        with TemporaryDirectory(prefix="work-", dir=home, ignore_cleanup_errors=True) as place:
            yield Path(place)

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
    """The database, or a part of it, as its dump brought it back. ``size`` is what it has on the target, in bytes."""

    copy: Copy
    size: int
    seconds: float  # of the dump and the restore


class Copies:
    """Copies of one database, for the drills that were asked for. Close it to stop the server and remove what was
    written."""

    def __init__(self, dsn: str, catalog: Catalog, snapshot: str = "", drill: Drill | None = None) -> None:
        self.drill = drill or Drill()
        self._dsn, self._catalog, self._snapshot = dsn, catalog, snapshot
        self._stack = ExitStack()
        self._scratch: Scratch | None = None
        self._restored: Restored | NotVerified | None = None

    @contextmanager
    def fresh(self) -> Iterator[Copy]:
        """A copy for one drill, as the target is; one at a time. Raises NotVerified where no copy can be made."""
        from psycopg import sql

        template = self.restored().copy
        with self._passing(template.scratch) as copy:
            names = map(sql.Identifier, (copy.name, template.name))
            _execute(template.scratch, sql.SQL("create database {} template {}").format(*names))
            yield copy

    @contextmanager
    def partial(self, tables: Collection[str]) -> Iterator[Restored]:
        """A copy of the whole catalogue, with rows of these tables alone; one at a time. Raises NotVerified."""
        size = tools.size(self._dsn, tables)
        with self._passing(self._started(size, 1)) as copy:
            part = tools.only_rows(self._catalog, tables)
            yield Restored(copy, size, self._load(copy, lambda: tools.create(*self._place(copy)), part))

    def again(self, copy: Copy, schema: str, tables: Collection[str]) -> Restored:
        """The copy with that schema, of these tables, lost and brought back from a dump of the schema alone. Raises
        NotVerified."""
        size = tools.size(self._dsn, tables)
        self._started(size, 1)
        part, lose = tools.only_schema(schema), lambda: tools.empty(copy.dsn, self._catalog, schema)
        return Restored(copy, size, self._load(copy, lose, part, schema))

    def restored(self) -> Restored:
        """The database that all copies are clones of: dumped and restored when first asked for, and again where a drill
        crashed the server and it has unlogged tables, which are empty then.

        Nobody may write into it, or stay connected. Raises NotVerified, each time, where that failed.
        """
        crashed = isinstance(self._restored, Restored) and self._restored.copy.scratch.crashed
        if crashed and any(table.persistence == "u" for table in self._catalog.tables):
            self.close()
            self._restored = None
        if self._restored is None:
            try:
                self._restored = self._restore()
            except NotVerified as error:
                self.close()
                self._restored = error
            except BaseException:
                self.close()  # whoever tries again begins anew
                raise
        if isinstance(self._restored, NotVerified):
            raise self._restored
        return self._restored

    def _restore(self) -> Restored:
        size = tools.size(self._dsn)
        copy = Copy(self._started(size, 2), "original")  # and a drill's clone of it
        return Restored(copy, size, self._load(copy, lambda: tools.create(*self._place(copy))))

    def _started(self, size: int, copies: int) -> Scratch:
        """The scratch server, with room for so many copies of that size and a dump. Raises NotVerified."""
        scratch = self._scratch = self._scratch or self._start()
        tools.need_space(scratch.server.directory, (copies + 1) * size)  # the dump is beside them
        return scratch

    def _start(self) -> Scratch:
        version = self._catalog.server.version // 10_000
        try:
            binaries = find_binaries(str(next((v for v in SERVERS if v >= version), version)))
            empty = prepared(f"empty-{sha256(str(binaries).encode()).hexdigest()[:16]}", binaries, lambda _: None)
            scratch = Scratch(self._stack.enter_context(running(bindir=binaries, template=empty)), binaries)
        except ServerError as error:
            raise NotVerified(str(error)) from None
        self._stack.callback(scratch.stop)
        return scratch

    def _place(self, copy: Copy) -> tuple[str, str, Catalog]:
        return copy.scratch.server.dsn(), copy.name, self._catalog

    def _load(self, copy: Copy, prepare: Callable[[], None], part: Sequence[str] = (), there: str = "") -> float:
        """Dump, prepare, restore. Returns the seconds that dump and restore took."""
        with copy.scratch.folder() as place:
            dump, started, binaries = place / "dump", time.monotonic(), copy.scratch.binaries
            tools.dump(binaries, self._dsn, dump, self._snapshot, part)
            prepare()
            tools.restore(binaries, copy.dsn, dump, there)
        return time.monotonic() - started

    @contextmanager
    def _passing(self, scratch: Scratch) -> Iterator[Copy]:
        """The name of a database that is not there yet, and is gone after the block. Raises NotVerified."""
        import psycopg
        from psycopg import sql

        copy = Copy(scratch, "copy")
        drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(copy.name))
        _execute(scratch, drop)  # of a drill that was interrupted just then
        try:
            yield copy
        finally:
            # A drill may have lost the server: what is left goes with it. An error here would hide why the drill ended.
            with suppress(psycopg.Error), psycopg.connect(scratch.server.dsn(), autocommit=True) as connection:
                connection.execute(drop)

    def close(self) -> None:
        self._scratch = None
        self._stack.close()


def _execute(scratch: Scratch, command: Composed) -> None:
    import psycopg

    try:
        with psycopg.connect(scratch.server.dsn(), autocommit=True) as connection:
            connection.execute(command)
    except psycopg.Error as error:
        why = error.sqlstate or type(error).__name__
        raise NotVerified(f"no copy can be made for a drill on the scratch server ({why})") from None
