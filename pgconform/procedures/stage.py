"""A procedure on a copy of the database: run, held at a write, killed there; and which rows it wrote."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

from pgconform.catalog import Catalog
from pgconform.contract import Contract, Members, Registry, Tenancy
from pgconform.contract_operations import BLANKS, Procedure
from pgconform.database import Row, explain, fetched, said
from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, joined, statement

if TYPE_CHECKING:
    from psycopg import Connection

    from pgconform.recovery.copies import Copies, Copy

PATIENCE = 30  # seconds that one run of a procedure, or one wait for it, may take
LOCKED = "300ms"  # how long a writer beside the procedure waits for a row
LOCK = 7_305_931  # the advisory lock at which a held procedure waits
# Of every session in a copy. A server of ours may answer before a commit is written, which a crash would then undo. One
# that we hold, and that holds what we ask for, is in no deadlock: we give up first.
_SETTINGS = {
    "statement_timeout": f"{PATIENCE}s", "TimeZone": "UTC", "client_min_messages": "error",
    "synchronous_commit": "on", "deadlock_timeout": f"{2 * PATIENCE}s",
}  # fmt: skip
# Whatever a drill needs in its copy; statement triggers fire for whoever writes. What a sequence counts stays counted
# when a transaction is rolled back, and is counted for all sessions together: only one of them is held.
_PREPARED = """
create schema pgconform_drill;
create table pgconform_drill.kept (relation text not null, content jsonb not null);
create table pgconform_drill.written (number bigint generated always as identity, relation text not null);
create sequence pgconform_drill.reached;
create function pgconform_drill.wait() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  if pg_catalog.nextval('pgconform_drill.reached') = tg_argv[0]::bigint then
    perform pg_catalog.pg_advisory_lock_shared(tg_argv[1]::bigint);
    perform pg_catalog.pg_advisory_unlock_shared(tg_argv[1]::bigint);
  end if;
  return null;
end $$;
create function pgconform_drill.count() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into pgconform_drill.written (relation) values (tg_argv[0]);
  return null;
end $$;
create function pgconform_drill.fail() returns trigger language plpgsql as $$
begin
  raise exception 'refused by a drill of pgconform';
end $$;
"""
_WAITING = statement(
    "select l.pid from pg_catalog.pg_locks as l where l.locktype = 'advisory' and not l.granted"
    " and l.objid = {lock}::oid order by l.pid",
    lock=LOCK,
)
_BEHIND = (
    "select l.pid from pg_catalog.pg_locks as l join pg_catalog.pg_stat_activity as a on a.pid = l.pid"
    " where not l.granted and a.datname = pg_catalog.current_database() and a.backend_type = 'client backend'"
    " and l.pid <> {held} order by l.pid"
)
_WRITES = "insert or update or delete"

Point = tuple[str, int]  # where a procedure is held: a table, and the number of its write there
State = dict[str, object]  # what a drill looks at, by table


@dataclass(frozen=True, slots=True)
class Drilled:
    """A declared procedure. ``needs`` lists what must exist before it can be drilled."""

    name: str
    item: Procedure
    needs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def remedy(self) -> str:
        """SQL that makes the procedure as the contract defines it."""
        return self.item.definition or f"-- correct what [procedures.{self.name}] of the contract runs, or define it"

    def mends(self, table: str, catalog: Catalog) -> str:
        """The remedy for a table that lost rows: a crash empties an unlogged one, whatever writes it."""
        stored = catalog.table(table)
        return f"alter table {table} set logged;" if stored and stored.persistence == "u" else self.remedy


def drilled(contract: Contract, kind: str) -> Iterator[Drilled]:
    """The declared procedures of a kind, in file order."""
    for name, item in contract.procedures.items():
        if item.kind == kind:
            yield Drilled(name, item, tuple((table, ()) for table in item.changes))


def whole(catalog: Catalog) -> dict[str, Statement]:
    """Every table that is not a partition, with all its rows."""
    stored = (t for t in catalog.tables if t.kind in ("table", "partitioned") and not t.extension)
    return {str(t): statement("true") for t in stored if not t.parent}


def tenancy_of(contract: Contract, item: Procedure) -> Tenancy:
    """The tenancy whose tenants a procedure makes or changes: the named one, or the only one."""
    return contract.tenancies[item.tenancy or next(iter(contract.tenancies))]


def registered(contract: Contract, item: Procedure) -> tuple[Registry, Members]:
    """The registry and the members of that tenancy; a contract whose procedure needs them and has none is refused."""
    tenancy = tenancy_of(contract, item)
    if not tenancy.registry or not tenancy.members:
        raise NotVerified("the tenancy has no registry or no members; declare both under [tenancies]")
    return tenancy.registry, tenancy.members


@dataclass(slots=True)
class Run:
    """What became of a run: ``error`` is '' or what the server said, without any value of a row."""

    error: str = ""
    pid: int = 0  # of a session that is held


@dataclass
class Stage:
    """One copy, with a session that sees everything. Errors of that session are psycopg's."""

    copy: Copy
    item: Procedure
    connection: Connection[Any]
    values: dict[str, object] = field(default_factory=dict)  # for the procedure's blanks
    since: str = ""  # the first transaction of which rows count as written

    def rows(self, question: Statement) -> list[Row]:
        """All rows of an answer; none of a command."""
        from psycopg import RawCursor

        text, parameters = question.run_text()
        with RawCursor(self.connection) as cursor:
            cursor.execute(text.encode(), parameters, prepare=False)
            return fetched(cursor)

    def count(self, question: Statement) -> int:
        """The number that a question is answered with."""
        return int(self.rows(question)[0][0])

    def say(self, text: str) -> None:
        """Run some SQL of a remedy or of our own, as it is."""
        self.connection.execute(text.encode(), prepare=False)

    def crash(self) -> None:
        """Kill the whole server, as a crash of its machine would, and come back."""
        self.copy.scratch.crash()
        self.connection.close()  # not before: a procedure that waits for our lock would go on
        self.connection = _connected(self.copy)

    def beside(self, change: Statement, *, triggers: bool = True) -> bool:
        """A change by another session than the procedure's; False where a row is locked, or may not be as it would be:
        then whoever makes it is refused, and has lost nothing."""
        import psycopg

        self.say(f"set lock_timeout = '{LOCKED}'")
        if not triggers:  # what stamps rows, or refuses changes, must not undo it
            self.say("set session_replication_role = replica")
        try:
            self.rows(change)
        except (psycopg.errors.LockNotAvailable, psycopg.IntegrityError):
            return False
        finally:
            with suppress(psycopg.Error):  # of a session that is gone, which hides no reason why it is
                self.say("reset lock_timeout; reset session_replication_role")
        return True

    # -- which rows are new --------------------------------------------------------------------------------------

    def mark(self) -> None:
        """From here on, ``fresh`` rows are those written later."""
        self.since = str(self.rows(statement("select pg_catalog.pg_current_xact_id()::xid::text"))[0][0])

    def fresh(self, alias: str = "r") -> Statement:
        """The condition under which a row was written since the mark; rolled back ones cannot be seen."""
        xmin = Name((alias, "xmin"))
        return statement("pg_catalog.age({x}) < pg_catalog.age({since}::xid)", x=xmin, since=self.since)

    def sizes(self, tables: Mapping[str, Statement]) -> dict[str, tuple[int, int]]:
        """How many rows for which a condition holds each table has, and how many of these were written."""
        counted = "select pg_catalog.count(*), pg_catalog.count(*) filter (where {fresh}) from {t} as r where {where}"
        return {
            name: tuple(self.rows(statement(counted, fresh=self.fresh(), t=Name.of(name), where=where))[0])
            for name, where in tables.items()
        }

    def watched(self, tables: Mapping[str, Statement]) -> Callable[[], list[str]]:
        """Mark, and give what tells which of the tables are not as they were then."""
        self.mark()
        before = self.sizes(tables)
        return lambda: [n for n, (rows, fresh) in self.sizes(tables).items() if fresh or rows != before[n][0]]

    def digests(self, tables: Iterable[str], ignored: str) -> State:
        """What each table holds, whatever the order of its rows, without one column."""
        summed = (
            "select pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended("
            "(pg_catalog.to_jsonb(r) - {c}::text)::text, 0)::numeric) from {t} as r"
        )
        return {name: self.rows(statement(summed, c=ignored, t=Name.of(name)))[0] for name in tables}

    def again(self, tables: Iterable[str], ignored: str) -> list[str]:
        """Run the procedure once more; the tables that hold something else then, without one column."""
        before = self.digests(tables, ignored)
        self.run()
        return [name for name, digest in self.digests(tables, ignored).items() if digest != before[name]]

    # -- runs ----------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        """Run the procedure to its end: as psql would, each statement by itself, on after an error."""
        run = Run()
        self._run(run, self._statements(), {})
        return run

    def points(self, tables: Iterable[str]) -> list[Point]:
        """Runs the procedure to its end; where it can be held: at the first, the second and the last write of each of
        these tables that it writes."""
        with ExitStack() as counted:
            for table in tables:
                counted.enter_context(self.trigger(table, _WRITES, "count", table))
            self.run()
        counts = (
            "select w.relation, pg_catalog.count(*) from pgconform_drill.written as w group by 1 order by min(w.ctid)"
        )
        return [
            (table, number)
            for table, count in self.rows(statement(counts))
            for number in sorted({1, min(2, count), count})
        ]

    @contextmanager
    def held(self, table: str, events: str = _WRITES, number: int = 1, **settings: str) -> Iterator[Run]:
        """The procedure, held at that one of its writes of a table; it goes on after the block, to its end.

        ``pid`` is 0 where it ended without such a write.
        """
        run = Run()
        thread = self._thread(run, settings)
        self.say("alter sequence pgconform_drill.reached restart")
        with self.trigger(table, events, "wait", number, LOCK):
            self.rows(statement("select pg_catalog.pg_advisory_lock({lock})", lock=LOCK))
            thread.start()
            try:
                if waiting := self._until(thread, _WAITING):
                    run.pid = int(waiting[0][0])
                yield run
            finally:
                try:
                    self.rows(statement("select pg_catalog.pg_advisory_unlock_all()"))
                except Exception:  # an interrupt may leave the session busy; what it holds goes with it
                    self.connection.close()
                thread.join(PATIENCE)

    def stopped(self, point: Point, *, crash: bool = False) -> bool:
        """Run the procedure, and end its session at that write, or kill the whole server; False where it ended without
        such a write."""
        table, number = point
        with self.held(table, number=number) as run:
            if crash:
                self.crash()
            elif run.pid:
                self.terminate(run)
        return bool(run.pid)

    def crossed(self, point: Point, values: Sequence[dict[str, object]]) -> list[Run]:
        """Two runs at once, each with its own values: where the first is held, the second begins; when that has ended,
        or waits for the first, the first goes on."""
        (table, number), impatient = point, {"deadlock_timeout": "1s"}
        self.values, second = values[0], Run()
        with self.held(table, number=number, **impatient) as first:
            self.values = values[1]
            thread = self._thread(second, impatient)
            thread.start()
            if first.pid:
                self._until(thread, statement(_BEHIND, held=first.pid))
        thread.join(PATIENCE)
        return [first, second]

    def terminate(self, run: Run) -> None:
        """End the session of a held procedure, as an administrator or a lost connection does; gone when it returns."""
        self.rows(statement("select pg_catalog.pg_terminate_backend({pid})", pid=run.pid))
        there = statement("select pg_catalog.count(*) from pg_catalog.pg_stat_activity where pid = {pid}", pid=run.pid)
        end = time.monotonic() + PATIENCE
        while self.count(there) and time.monotonic() < end:
            time.sleep(0.005)

    @contextmanager
    def trigger(self, table: str, events: str, action: str, *arguments: object) -> Iterator[None]:
        """Every such write of the table waits, is counted, or fails."""
        name = statement("{t}", t=Name.of(table))
        given = joined(statement("{a}", a=argument) for argument in arguments)
        made = (
            f"create trigger pgconform_drill before {events} on {{t}} execute function pgconform_drill.{action}({{a}})"
        )
        self.say(str(statement(made, t=name, a=given)))
        try:
            yield
        finally:
            with suppress(Exception):
                self.rows(statement("drop trigger pgconform_drill on {t}", t=name))

    def _until(self, thread: Thread, question: Statement) -> list[Row]:
        """What the question is answered with, as soon as that is anything, or the thread has ended."""
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and time.monotonic() < end:
            if found := self.rows(question):
                return found
            time.sleep(0.005)
        return []

    def _thread(self, run: Run, settings: dict[str, str]) -> Thread:
        return Thread(target=self._run, args=(run, self._statements(), settings), daemon=True)

    def _run(self, run: Run, statements: list[str], settings: dict[str, str]) -> None:
        import psycopg
        from psycopg import sql

        try:
            with _connected(self.copy, settings) as connection:
                if self.item.role:
                    connection.execute(sql.SQL("set role {}").format(sql.Identifier(self.item.role)))
                for text in statements:
                    try:
                        connection.execute(text.encode(), prepare=False)
                    except psycopg.Error as error:
                        run.error = run.error or said(error)
                        if connection.closed or connection.broken:
                            return
        except psycopg.Error as error:
            run.error = run.error or said(error)

    def _statements(self) -> list[str]:
        """The statements of a run, with their blanks filled in. Raises NotVerified."""
        if self.item.call:
            return [self._filled(self.item.call)]
        postgast: Any = importlib.import_module("postgast")  # whose generated stub mypy cannot read
        try:
            return [text for text in postgast.split(self._filled(self.item.script)) if text.strip()]
        except postgast.PgQueryError:
            raise NotVerified("the script is not SQL; psql's own commands cannot be drilled") from None

    def _filled(self, text: str) -> str:
        from psycopg import sql

        def literal(match: re.Match[str]) -> str:
            return sql.Literal(self.values[match[1]]).as_string(self.connection)

        blanks = "|".join(BLANKS[self.item.kind])
        return re.sub(rf"\{{({blanks})\}}", literal, text) if blanks else text


def _connected(copy: Copy, settings: dict[str, str] | None = None) -> Connection[Any]:
    connection = copy.connect()
    try:
        for name, value in (_SETTINGS | (settings or {})).items():
            connection.execute("select pg_catalog.set_config(%s, %s, false)", (name, value), prepare=False)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def staged(copies: Copies, subject: Drilled) -> Iterator[Stage]:
    """A fresh copy on which the procedure can be run. Raises NotVerified."""
    import psycopg

    with copies.fresh() as copy:
        try:
            stage = Stage(copy, subject.item, _connected(copy))
            try:
                stage.connection.execute("set search_path = ''", prepare=False)
                stage.say(_PREPARED)
                stage.mark()
                yield stage
            finally:
                stage.connection.close()
        except psycopg.Error as error:
            raise NotVerified(explain(error, f"drilling [procedures.{subject}] on a copy")) from None
