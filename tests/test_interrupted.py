"""Drills on copies, interrupted at steps of every kind: the target stays as it was, and nothing is left behind.

A step is a statement, a stream of COPY, a new session, a signal, or a program that is run, by the thread of the drill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace as replaced

from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, evaluate
from pgconform.database import Database, Row, begin
from pgconform.introspect import read_text, snapshot
from pgconform.model import Drill, Finding, NotVerified, TargetLost, Verdict
from pgconform.procedures.archiving import archivings
from pgconform.procedures.stage import PATIENCE, Stage, staged
from pgconform.recovery import compare
from pgconform.recovery.copies import Copies
from pgconform.statements import Statement
from pgconform.targets.server import Server
from tests import test_procedures, test_restore
from tests.committing import clone
from tests.proving import contract_of
from tests.test_procedures import changed, evidence_of
from tests.test_restore import left

weird, cache, places = test_procedures.weird, test_restore.cache, test_restore.places  # fixtures
ON_COPIES = [check for check in load().values() if "copies" in check.asks]
# Which database has what a drill needs: the small one of unusual names, but for embeddings.
EMBEDDED = {"vector-index-rebuilt", "search-function-restored"}
SHOP = 'Weird "Shop"'
# Steps between the first and the last one; each costs a new copy. PGC_STEPS=9999 takes every step, for an hour or two.
SPREAD = int(os.environ.get("PGC_STEPS", "1"))


class Steps:
    """Counts the steps of this thread; at the given one, raises before or after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.after, self.error = 0, 0, False, BaseException()
        self._ours = threading.get_ident()
        for owner, name in (
            (psycopg.Cursor, "execute"), (psycopg.Cursor, "copy"), (psycopg, "connect"),
            (subprocess, "run"), (os, "kill"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))
        self.made: list[Path] = []  # directories
        real = tempfile.mkdtemp

        def noted(*arguments: Any, **named: Any) -> str:
            self.made.append(Path(real(*arguments, **named)))
            return str(self.made[-1])

        monkeypatch.setattr(tempfile, "mkdtemp", noted)

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._ours:
                return real(*arguments, **named)
            self.count += 1
            now = self.count == self.at
            if now and not self.after:
                raise self.error
            try:
                done = real(*arguments, **named)
            except psycopg.Error:  # what the server refuses is a step, too
                if now:
                    self._cut(arguments[0])
                    raise self.error from None
                raise
            if now:
                getattr(done, "close", lambda: None)()  # as a session is that nobody has got hold of
                self._cut(done)
                raise self.error
            return done

        return step

    def _cut(self, cursor: object) -> None:
        """Close the session of a copy, as psycopg does where it cancels a statement and that ends in another error."""
        if isinstance(self.error, KeyboardInterrupt) and isinstance(cursor, psycopg.Cursor):
            of = cursor.connection
            if not of.closed and of.info.dbname == "copy":
                of.close()

    def arm(self, at: int, error: BaseException, *, after: bool) -> None:
        self.count, self.at, self.error, self.after = 0, at, error, after


def state(dsn: str) -> object:
    """All that a target holds: its catalogue, and the sums of its rows."""
    with closing(psycopg.connect(dsn, autocommit=True, prepare_threshold=None)) as connection:
        read_text(connection)
        begin(connection, contract_of("victorysync").limits)
        catalog = snapshot(connection)
        database = Database(connection)
        return catalog, compare.rows(database, catalog), compare.sequences(database, catalog)


def spread(steps: int) -> list[int]:
    """The first, the last, and some between: all of them where so many are wanted."""
    return sorted({1, steps, *(1 + n * (steps - 1) // (SPREAD + 1) for n in range(1, SPREAD + 1))})


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@contextmanager
def target(references: Server, dsn: str, check: Check) -> Iterator[tuple[str, Evidence]]:
    """A database that the drill is for, and what the drill may ask for, but copies."""
    with ExitStack() as stack:
        contract = replaced(changed(), schemas=replaced(changed().schemas, tenant=(SHOP,)))
        if check.id in EMBEDDED:
            dsn = stack.enter_context(clone(references, "muva"))
            contract = contract_of("muva")
        evidence = stack.enter_context(evidence_of(dsn, contract))
        yield dsn, evidence


@pytest.mark.parametrize("drill", [Drill(schema=SHOP), Drill(tenant="a")], ids=["schema", "tenant"])
def test_a_restore_of_a_part_that_is_interrupted_leaves_no_copy_behind(
    references: Server, weird: str, steps: Steps, cache: Path, drill: Drill
) -> None:
    interrupted(references, weird, steps, cache, load()["restore-complete"], drill)


def judged(check: Check, evidence: Evidence, copies: Copies) -> Verdict:
    first = check.subjects(evidence.contract)[:1]
    return evaluate(check, replace(evidence, copies=copies), first).verdict


@pytest.mark.parametrize("check", ON_COPIES, ids=lambda check: check.id)
def test_a_drill_that_is_interrupted_leaves_no_copy_behind(
    references: Server,
    weird: str,
    steps: Steps,
    cache: Path,
    check: Check,
) -> None:
    interrupted(references, weird, steps, cache, check, Drill())


def interrupted(references: Server, weird: str, steps: Steps, cache: Path, check: Check, drill: Drill) -> None:
    with target(references, weird, check) as (dsn, evidence):
        before, copies = state(dsn), Copies(dsn, evidence.catalog, drill=drill)
        try:
            copies.restored()
            steps.arm(0, BaseException(), after=False)
            assert judged(check, evidence, copies) in (Verdict.PASSED, Verdict.FAILED)
            assert steps.count > 5
            for number, step in enumerate(spread(steps.count)):
                for kind in ("interrupt", "error"):
                    steps.arm(step, errors(kind), after=bool(number % 2))
                    # What waits for another session asks more or less often, and may end before the step.
                    assert ended(check, evidence, copies) == kind or steps.count < step
                    steps.arm(0, BaseException(), after=False)
                    copies = same_or_new(copies, dsn, evidence)
        finally:
            copies.close()
        assert (left(cache), [str(path) for path in steps.made if path.exists()]) == ([], [])
        assert state(dsn) == before


def ended(check: Check, evidence: Evidence, copies: Copies) -> str:
    """What a drill ends with: an interrupt ends the run, an error the drill alone."""
    try:
        judged(check, evidence, copies)
        return "error"
    except KeyboardInterrupt:
        return "interrupt"


def same_or_new(copies: Copies, dsn: str, evidence: Evidence) -> Copies:
    """The same copies, on whose server there is one drill's at most; others where the drill had just killed it."""
    server = copies.restored().copy.scratch.server
    try:
        with closing(psycopg.connect(server.dsn(), autocommit=True)) as connection:
            names = connection.execute("select datname from pg_catalog.pg_database where not datistemplate order by 1")
            assert {name for (name,) in names} - {"copy"} == {"original", "postgres"}  # where its drop was the step
            return copies
    except psycopg.OperationalError:
        copies.close()
        new = Copies(dsn, evidence.catalog, drill=copies.drill)
        new.restored()
        return new


def test_an_interrupt_that_costs_the_session_ends_the_run(weird: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be undone in a session cannot be, once that is closed; nothing of it is worth more than Ctrl-C."""
    real = Stage.beside

    def cut(stage: Stage, change: Statement, *, triggers: bool = True) -> bool:
        def lost(_: Statement) -> list[Row]:
            del vars(stage)["rows"]
            stage.connection.close()
            raise KeyboardInterrupt

        vars(stage)["rows"] = lost
        return real(stage, change, triggers=triggers)

    monkeypatch.setattr(Stage, "beside", cut)
    with pytest.raises(KeyboardInterrupt), evidence_of(weird, changed()) as evidence:
        evaluate(load()["archive-undisturbed"], evidence)


def test_a_session_that_an_interrupt_left_busy_holds_no_procedure_any_more(weird: str) -> None:
    """Unlocking is refused then; the procedure would wait for as long as it may, and the run for the procedure."""
    with evidence_of(weird, changed()) as evidence:
        assert evidence.copies
        with staged(evidence.copies, next(archivings(evidence.contract))) as stage:
            with suppress(KeyboardInterrupt), stage.held('"Weird ""Shop"""."Old line"') as run:
                assert run.pid
                started = time.monotonic()
                stage.connection.pgconn.send_query(b"select 1")
                raise KeyboardInterrupt
            assert time.monotonic() - started < PATIENCE / 2


@pytest.mark.parametrize("error", [NotVerified("gone"), TargetLost("gone"), OSError("gone")], ids=repr)
def test_an_error_on_the_way_out_hides_no_interrupt(weird: str, error: Exception) -> None:
    def judge(*_: object, **__: object) -> Iterator[Finding]:
        try:
            yield Finding("t", "found", "select 1")
            raise KeyboardInterrupt
        finally:
            raise error from None

    with pytest.raises(KeyboardInterrupt), evidence_of(weird, changed()) as evidence:
        evaluate(replace(load()["archive-exact"], judge=judge), evidence)


MOMENTS = {  # what a scratch server answers, in the course of a run
    "loaded": "select from pg_catalog.pg_database where datname = 'original'",
    "copied": "select from pg_catalog.pg_database where datname = 'copy'",
    "held": "select from pg_catalog.pg_locks where locktype = 'advisory' and not granted",
}


@pytest.mark.parametrize(("moment", "signum"), [
    ("loaded", signal.SIGTERM), ("copied", signal.SIGINT), ("held", signal.SIGTERM), ("held", signal.SIGINT),
])  # fmt: skip
def test_a_run_that_is_ended_by_a_signal_leaves_nothing_behind(
    weird: str, cache: Path, tmp_path: Path, moment: str, signum: int
) -> None:
    before = state(weird)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pgconform", "run", f"--contract={test_procedures.HOME / 'weird.toml'}",
            f"--target=live:{weird}", "--drill=restore", f"--out={tmp_path}", "--history=none",
            "-k", "undisturbed or interrupted", "-p", "no:cacheprovider",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    await_moment(process, cache / "cache" / "servers", MOMENTS[moment])
    process.send_signal(signum)
    output = process.communicate(timeout=600)[0]
    assert (process.returncode, left(cache)) == (2, []), output
    assert "the run was cut short" in output
    assert state(weird) == before


def await_moment(process: subprocess.Popen[str], servers: Path, question: str) -> None:
    """Ask the run's scratch server until it has an answer."""
    while process.poll() is None:
        for socket in servers.glob("*/socket"):
            with suppress(psycopg.Error, OSError), closing(psycopg.connect(
                host=str(socket.readlink()), port=5432, user="postgres", autocommit=True
            )) as connection:  # fmt: skip
                while connection.execute(question.encode()).fetchone() is None:
                    time.sleep(0.003)
                return
        time.sleep(0.01)


def errors(kind: str) -> BaseException:
    return KeyboardInterrupt() if kind == "interrupt" else psycopg.OperationalError("injected")


def test_copies_that_are_interrupted_while_they_are_made_leave_nothing_behind(
    weird: str,
    steps: Steps,
    cache: Path,
) -> None:
    before = state(weird)
    with closing(psycopg.connect(weird, autocommit=True)) as connection:
        read_text(connection)
        catalog = snapshot(connection)

    def make() -> None:
        with closing(Copies(weird, catalog)) as copies, copies.fresh():
            pass

    make()  # once, so that the empty cluster is there
    steps.arm(0, BaseException(), after=False)
    make()
    for number, step in enumerate(spread(steps.count)):
        steps.arm(step, errors("error" if number % 2 else "interrupt"), after=bool(number))
        with suppress(KeyboardInterrupt, psycopg.OperationalError, NotVerified):
            make()
        steps.arm(0, BaseException(), after=False)
        assert (step, left(cache), [str(path) for path in steps.made if path.exists()]) == (step, [], [])
    assert state(weird) == before
