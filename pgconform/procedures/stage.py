"""A procedure on a copy of the database: run, held at a write, killed there; and which rows it wrote."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

from pgconform.contract import Contract, Members, Registry, Tenancy
from pgconform.contract_operations import BLANKS, Procedure
from pgconform.database import Row, explain, said
from pgconform.model import NotVerified
from pgconform.statements import Name, Statement, statement

if TYPE_CHECKING:
    from psycopg import Connection

    from pgconform.recovery.copies import Copies, Copy

PATIENCE = 30  # seconds that one run of a procedure, or one wait for it, may take
LOCK = 7_305_931  # the advisory lock at which a held procedure waits
# Of every session in a copy. A server of ours may answer before a commit is written, which a crash would then undo. One
# that we hold, and that holds what we ask for, is in no deadlock: we give up first.
_SETTINGS = (
    ("statement_timeout", f"{PATIENCE}s"), ("TimeZone", "UTC"), ("client_min_messages", "error"),
    ("synchronous_commit", "on"), ("deadlock_timeout", f"{2 * PATIENCE}s"),
)  # fmt: skip
# Whatever a drill needs in its copy; statement triggers fire for whoever writes.
_PREPARED = """
create schema pgconform_drill;
create table pgconform_drill.kept (relation text not null, content jsonb not null);
create function pgconform_drill.wait() returns trigger language plpgsql as $$
begin
  perform pg_catalog.pg_advisory_lock_shared(%(lock)s);
  perform pg_catalog.pg_advisory_unlock_shared(%(lock)s);
  return null;
end $$;
create function pgconform_drill.fail() returns trigger language plpgsql as $$
begin
  raise exception 'refused by a drill of pgconform';
end $$;
""" % {"lock": LOCK}  # noqa: UP031 - format() would need every brace doubled
_WAITING = statement(
    "select l.pid from pg_catalog.pg_locks as l where l.locktype = 'advisory' and not l.granted"
    " and l.objid = {lock}::oid order by l.pid",
    lock=LOCK,
)


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


def drilled(contract: Contract, kind: str) -> Iterator[Drilled]:
    """The declared procedures of a kind, in file order."""
    for name, item in contract.procedures.items():
        if item.kind == kind:
            yield Drilled(name, item, tuple((table, ()) for table in item.changes))


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

        text, parameters = question.run_text(self.connection)
        with RawCursor(self.connection) as cursor:
            cursor.execute(text.encode(), parameters, prepare=False)
            return cursor.fetchall() if cursor.description else []

    def count(self, question: Statement) -> int:
        """The number that a question is answered with."""
        return int(self.rows(question)[0][0])

    def say(self, text: str) -> None:
        """Run some SQL of a remedy or of our own, as it is."""
        self.connection.execute(text.encode(), prepare=False)

    def crash(self) -> None:
        """Kill the whole server, as a crash of its machine would, and come back."""
        self.connection.close()
        self.copy.scratch.crash()
        self.connection = _connected(self.copy)

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

    def digests(self, tables: Iterable[str], ignored: str) -> dict[str, object]:
        """What each table holds, whatever the order of its rows, without one column."""
        summed = (
            "select pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended("
            "(pg_catalog.to_jsonb(r) - {c}::text)::text, 0)::numeric) from {t} as r"
        )
        return {name: self.rows(statement(summed, c=ignored, t=Name.of(name)))[0] for name in tables}

    # -- runs ----------------------------------------------------------------------------------------------------

    def run(self) -> Run:
        """Run the procedure to its end: as psql would, each statement by itself, on after an error."""
        run = Run()
        self._run(run, self._statements())
        return run

    @contextmanager
    def held(self, table: str, events: str = "insert or update or delete") -> Iterator[Run]:
        """The procedure, held where it first writes a table so; it goes on after the block, to its end.

        ``pid`` is 0 where it ended without such a write.
        """
        run = Run()
        thread = Thread(target=self._run, args=(run, self._statements()), daemon=True)
        with self.trigger(table, events, "wait"):
            self.rows(statement("select pg_catalog.pg_advisory_lock({lock})", lock=LOCK))
            thread.start()
            try:
                run.pid = self._waiting(thread)
                yield run
            finally:
                with suppress(Exception):  # gone with the session, where the server was killed
                    self.rows(statement("select pg_catalog.pg_advisory_unlock_all()"))
                thread.join(PATIENCE)

    def terminate(self, run: Run) -> None:
        """End the session of a held procedure, as an administrator or a lost connection does; gone when it returns."""
        self.rows(statement("select pg_catalog.pg_terminate_backend({pid})", pid=run.pid))
        there = statement("select pg_catalog.count(*) from pg_catalog.pg_stat_activity where pid = {pid}", pid=run.pid)
        end = time.monotonic() + PATIENCE
        while self.count(there) and time.monotonic() < end:
            time.sleep(0.005)

    @contextmanager
    def trigger(self, table: str, events: str, action: str) -> Iterator[None]:
        """Every such write of the table waits, or fails."""
        name = statement("{t}", t=Name.of(table))
        make = f"create trigger pgconform_drill before {events} on {{t}} execute function pgconform_drill.{action}()"
        self.rows(statement(make, t=name))
        try:
            yield
        finally:
            with suppress(Exception):
                self.rows(statement("drop trigger pgconform_drill on {t}", t=name))

    def _waiting(self, thread: Thread) -> int:
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and time.monotonic() < end:
            if found := self.rows(_WAITING):
                return int(found[0][0])
            time.sleep(0.005)
        return 0

    def _run(self, run: Run, statements: list[str]) -> None:
        import psycopg
        from psycopg import sql

        try:
            with _connected(self.copy) as connection:
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


def _connected(copy: Copy) -> Connection[Any]:
    connection = copy.connect()
    try:
        for name, value in _SETTINGS:
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
