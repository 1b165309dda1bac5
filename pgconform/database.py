"""Questions to a database inside one transaction that somebody else opened: bounded, read-only, never trusted blindly.

The connection is in autocommit mode with an explicit BEGIN (see ``begin``); every question runs in a savepoint, so
that one that fails or times out leaves the transaction usable. Whatever goes wrong becomes ``NotVerified`` (with
what to grant or change) or ``TargetLost``; messages of the server that could hold row content are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pgconform.contract import Limits
from pgconform.model import NotVerified, TargetLost
from pgconform.names import quote
from pgconform.statements import Name, Statement, joined, statement

if TYPE_CHECKING:
    import psycopg
    from psycopg import Connection

# SQLSTATE classes whose messages name objects and settings but never values of rows:
# access rule (42), object not in state (55), operator intervention (57), resources (53), limits (54), transaction (25).
_SAFE_CLASSES = ("42", "55", "57", "53", "54", "25")
Row = tuple[Any, ...]
# Locks of the session and prepared statements outlive a rollback.
_UNDO = ";\n".join((
    "rollback to savepoint attempt", "release savepoint attempt", "select pg_catalog.pg_advisory_unlock_all()",
    "deallocate all",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a client's statement: rows touched or returned, or why the server refused it.

    ``after`` is what a session that sees everything was answered right after it. Rows are -1 where a command has no
    count.
    """

    rows: int
    state: str = ""
    said: str = ""
    after: tuple[Row, ...] = ()
    constraint: str = ""  # that was broken
    raised: bool = False  # by a function of theirs, perhaps before any policy was asked
    answer: tuple[Row, ...] = ()  # of the statement itself: never to be shown
    told: str = (
        ""  # what a function of theirs said when it raised: never to be shown; a constraint's words hold defaults
    )

    @property
    def passed(self) -> bool:
        """True where no privilege and no policy stood in the way of at least one row.

        Constraints are checked after policies (ExecInsert and ExecUpdate in PostgreSQL's nodeModifyTable.c), so a
        broken constraint (class 23) tells that the policies let the row pass.
        """
        return self.rows > 0 if not self.state else self.state[:2] == "23" and not self.raised


def begin(connection: Connection[Any], limits: Limits, *, snapshot: str = "", read_only: bool = True) -> None:
    """Open the run's transaction with its limits; joins an exported snapshot where one is named.

    All settings are local to the transaction: a pooler hands the connection on as it was.
    """
    mode = "read only" if read_only else "read write"
    connection.execute(f"begin transaction isolation level repeatable read, {mode}", prepare=False)
    if snapshot:
        from psycopg import sql

        connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)), prepare=False)
    settings = {
        "statement_timeout": str(limits.statement_timeout),
        "lock_timeout": str(limits.lock_timeout),
        "search_path": "",
        "row_security": "off",  # a hidden row is then an error, not a silent pass
        "TimeZone": "UTC",
        "application_name": "pgconform",
        "standard_conforming_strings": "on",
        "extra_float_digits": "1",
    }
    connection.execute(
        "select " + ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(settings)),
        [text for pair in settings.items() for text in pair],
        prepare=False,
    )


class Database:
    """Asks questions on one connection; ``truth`` sessions see every row, ``acting`` sessions what a role sees."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection
        self._answers: dict[Statement, list[Row]] = {}
        self._taken: set[str] = set()  # roles that attempts can become
        self.attempts = 0  # made so far
        self._entries: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, str]] = {}

    def rows(
        self, question: Statement, what: str, *, role: str = "", settings: Sequence[tuple[str, str]] = ()
    ) -> list[Row]:
        """All rows of the answer; with these settings, and as ``role`` under row security where one is given.

        Raises NotVerified (``what`` says what was asked) or TargetLost.
        """
        import psycopg

        if role or settings:
            with self._entered(role, tuple(settings), what):
                return self._execute(question)
        # Outside a transaction psycopg begins one, and ends it.
        if question.bound or self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with self._savepoint(what):
                return self._execute(question)
        try:  # one message, since round trips are what questions cost
            steps = "savepoint question", question.inline(self.connection), "release savepoint question"
            return self._message("\n;\n".join(steps))[1][1]
        except BaseException as error:
            if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                with suppress(psycopg.Error):
                    self._message("rollback to savepoint question;\nrelease savepoint question")
            if isinstance(error, psycopg.Error):
                raise self._refused(error, what) from None
            raise

    def run(self, command: Statement, what: str) -> None:
        """Executes a command that has no answer, such as one that makes a temporary table."""
        from psycopg import RawCursor

        text, parameters = command.run_text()
        with self._savepoint(what), RawCursor(self.connection) as cursor:
            cursor.execute(text.encode(), parameters, prepare=False)

    def remembered(self, question: Statement, what: str) -> list[Row]:
        """As ``rows``; asked once, since several checks look at the same figures."""
        if question not in self._answers:
            self._answers[question] = self.rows(question, what)
        return self._answers[question]

    def copied(self, question: Statement, what: str) -> Iterator[Any]:
        """The rows of the answer in COPY's binary format, a buffer each. Raises NotVerified or TargetLost."""
        command = f"copy ({question.inline(self.connection)}) to stdout (format binary)"
        with self._savepoint(what), self.connection.cursor() as cursor, cursor.copy(command.encode()) as copy:
            yield from copy

    def one(self, question: Statement, what: str, *, role: str = "", settings: Sequence[tuple[str, str]] = ()) -> Row:
        """The only row of the answer, which is asked for as ``rows`` are."""
        return self.rows(question, what, role=role, settings=settings)[0]

    @contextmanager
    def acting(self, role: str, settings: Sequence[tuple[str, str]]) -> Iterator[None]:
        """Everything inside runs as ``role`` with these settings and under row security; then all is undone."""
        with self._entered(role, tuple(settings), f"acting as role {role}"):
            yield

    @contextmanager
    def setting(self, settings: Sequence[tuple[str, str]], what: str) -> Iterator[None]:
        """Everything inside runs with these settings; then they are undone."""
        with self._entered("", tuple(settings), what):
            yield

    def attempt(
        self, role: str, settings: Sequence[tuple[str, str]], command: Statement, after: Statement | None = None
    ) -> Outcome:
        """Runs one statement as a client, and undoes it: in one message, since round trips are what attempts cost.

        Raises NotVerified where the role cannot be taken on, TargetLost where the server went away.
        """
        import psycopg

        begun, asked = ["savepoint attempt", *self._entry(role, tuple(settings))], command.inline(self.connection)
        then = ["reset role", "set local row_security = off", after.inline(self.connection)] if after else []
        if role not in self._taken:
            with self.acting(role, ()):  # raises where it cannot be taken on, which is not the client's trouble
                self._taken.add(role)
        self.attempts += 1
        try:
            if command.template.startswith("copy "):  # which a message cannot share with others
                self._message(";\n".join(begun))
                outcome = Outcome(self._copied(asked))
            else:
                answers = self._message(";\n".join([*begun, asked, *then, _UNDO]))
                seen = tuple(answers[6][1]) if after else ()
                return Outcome(answers[3][0], after=seen, answer=tuple(answers[3][1]))
        except psycopg.Error as error:
            if self.connection.closed or self.connection.broken:
                raise TargetLost(f"the server went away during an attempt ({_code(error)})") from None
            outcome = Outcome(
                0,
                error.sqlstate or "?",
                said(error),
                constraint=error.diag.constraint_name or "",
                raised=_raised(error),
                told=_told(error) if _raised(error) else "",
            )
        self._message(_UNDO)
        return outcome

    def send(self, steps: Sequence[Statement]) -> list[tuple[int, list[Row]]]:
        """Rows touched and rows answered by each of several statements of our own, sent as one message.

        Raises NotVerified or TargetLost; the transaction is then lost, unless a savepoint is there to go back to.
        """
        import psycopg

        try:
            return self._message(";\n".join(step.inline(self.connection) for step in steps))
        except psycopg.Error as error:
            if self.connection.closed or self.connection.broken:
                raise TargetLost(f"the server went away during a drill ({_code(error)})") from None
            raise NotVerified(explain(error, "drilling"), error.sqlstate or "", said(error)) from None

    def tried(self, steps: Sequence[Statement]) -> list[tuple[int, list[Row]]]:
        """As ``send``; where one of them is refused, all are undone, and the answer is empty."""
        try:
            answers = self.send([statement("savepoint tried"), *steps, statement("release savepoint tried")])
        except NotVerified:
            self.send([statement("rollback to savepoint tried"), statement("release savepoint tried")])
            return []
        return answers[1:-1]

    @contextmanager
    def _entered(self, role: str, settings: tuple[tuple[str, str], ...], what: str) -> Iterator[None]:
        import psycopg

        with self._savepoint(what, undo=True):
            set_all, become = self._entry(role, settings)
            if set_all:
                self._message(set_all)
            try:
                if role:
                    self._message(become)
            except psycopg.Error as error:  # not the role's own trouble: no SQLSTATE for the caller
                advice = f"grant {quote(role)} to the role that pgconform connects as"
                raise NotVerified(f"cannot act as role {quote(role)} ({_code(error)}); {advice}") from None
            yield

    def _entry(self, role: str, settings: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        """What gives a session these settings, and makes it ``role``'s under row security, as text: of few kinds, where
        there are thousands of questions and attempts."""
        if (role, settings) not in self._entries:
            pairs = [*settings, ("row_security", "on")] if role else settings
            set_all = joined(statement("pg_catalog.set_config({n}, {v}, true)", n=n, v=v) for n, v in pairs)
            steps = statement("select {all}", all=set_all), statement("set local role {r}", r=Name((role,)))
            first, last = [step.inline(self.connection) for step in steps]
            self._entries[role, settings] = first if pairs else "", last
        return self._entries[role, settings]

    def _message(self, text: str) -> list[tuple[int, list[Row]]]:
        """Rows touched and rows answered by each of several statements, sent as one message."""
        answers: list[tuple[int, list[Row]]] = []
        with self.connection.cursor() as cursor:
            cursor.execute(text.encode(), prepare=False)
            for result in cursor.results():
                answers.append((result.rowcount, fetched(result)))
        return answers

    def _copied(self, command: str) -> int:
        """Rows that a COPY TO returned; 1 where a COPY FROM was let in, without a row."""
        with self.connection.cursor() as cursor, cursor.copy(command.encode()) as copy:
            return sum(1 for _ in copy) if command.endswith("stdout") else 1

    def _execute(self, question: Statement) -> list[Row]:
        from psycopg import RawCursor

        text, parameters = question.run_text()
        with RawCursor(self.connection) as cursor:
            return cursor.execute(text.encode(), parameters, prepare=False).fetchall()

    @contextmanager
    def _savepoint(self, what: str, undo: bool = False) -> Iterator[None]:
        import psycopg

        try:
            with self.connection.transaction(force_rollback=undo):
                yield
        except psycopg.Error as error:
            raise self._refused(error, what) from None

    def _refused(self, error: psycopg.Error, what: str) -> NotVerified | TargetLost:
        if self.connection.closed or self.connection.broken:
            return TargetLost(f"the server went away while {what} ({_code(error)})")
        return NotVerified(explain(error, what), error.sqlstate or "", said(error))


def fetched(cursor: psycopg.Cursor[Row] | psycopg.RawCursor[Row]) -> list[Row]:
    """All rows of an answer; none of a command. Not by ``description``: that fails at names of columns in SQL_ASCII."""
    return cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else []


def claims_settings(setting: str, claims: dict[str, Any], settings: dict[str, str]) -> dict[str, str]:
    """The session settings that carry a token's claims as one JSON text, besides other settings."""
    return {setting: json.dumps(claims)} | settings if claims else dict(settings)


def explain(error: psycopg.Error, what: str) -> str:
    """One line: what was asked, why there is no answer, what to do. Holds no row content."""
    advice = _advice().get(error.sqlstate or "", "")
    if refused := re.fullmatch(r"permission denied for function (\S+)", error.diag.message_primary or ""):
        advice = f"grant EXECUTE on function {refused[1]} to the role that asked; pgconform reader grants none"
    return "; ".join(part for part in (f"while {what}", said(error), advice) if part)


def said(error: psycopg.Error) -> str:
    """What the server said, on one line; only its code where its words could hold row content."""
    safe = (error.sqlstate or "")[:2] in _SAFE_CLASSES and not _raised(error)
    detail = (error.diag.message_primary or "") if safe else ""
    return f"{' '.join((detail or type(error).__name__).split())} ({_code(error)})"


def _told(error: psycopg.Error) -> str:
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return "\n".join(filter(None, parts))


def _raised(error: psycopg.Error) -> bool:
    """True where a function of theirs raised it: it may say anything, and mean anything."""
    return error.diag.source_function == "exec_stmt_raise"


def _code(error: psycopg.Error) -> str:
    return f"SQLSTATE {error.sqlstate}" if error.sqlstate else type(error).__name__


@lru_cache(maxsize=1)
def _advice() -> dict[str, str]:
    return {
        "42501": "grant what pgconform reader grants to the role that pgconform connects as",
        "57014": "raise limits.statement_timeout in the contract, or run it when the server is less busy",
        "55P03": "another session holds a lock on it; run again when it is free, or raise limits.lock_timeout",
        "25006": "it writes, and a live target is never written",
    }


def role_text(roles: Sequence[str]) -> str:
    """Roles as GRANT and REVOKE list them."""
    return ", ".join("public" if role == "public" else quote(role) for role in roles)
