"""The history: what a run leaves, what can be made again from it, and what is refused."""

from __future__ import annotations

import json
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from pgconform.cli import main
from pgconform.contract import Contract
from pgconform.database import Database, begin
from pgconform.history import INDEX, History, append, append_figures, indexed, past
from pgconform.metrics import Row, write
from pgconform.model import Figure, Finding, Mistake, NotVerified, Result, Severity, Verdict
from pgconform.results import Run
from pgconform.session import _identity
from pgconform.targets.server import Server
from tests.committing import clone
from tests.proving import contract_of
from tests.test_run import run

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def record(folder: Path, days: float, value: float, database: str = "d") -> Path:
    run = Run((Contract(name="shop"),), started=NOW - timedelta(days=days))
    run.results = [Result("a-check", "shop", Verdict.PASSED, figures=(Figure("size", value, "GB"),))]
    return append(folder, run, {"shop": database})


def history(folder: Path, database: str = "d") -> History:
    return History(folder, "shop", database, NOW)


def test_a_series_is_of_one_database_oldest_first_and_from_before_the_run(tmp_path: Path) -> None:
    for days, value, database in [(1, 3, "d"), (2, 2, "d"), (3, 9, "other"), (-1, 9, "d")]:
        record(tmp_path, days, value, database)
    assert history(tmp_path).series("size") == [(2.0, 2.0), (1.0, 3.0)]
    assert history(tmp_path).series("siz") == []
    assert history(tmp_path).all_series("siz") == {"size": [(2.0, 2.0), (1.0, 3.0)]}
    assert history(tmp_path).last() == 1.0
    assert history(tmp_path, "third").last() is None


def test_a_runs_file_is_json_lines_that_nobody_may_change(tmp_path: Path) -> None:
    path = record(tmp_path, 1, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["run", "verdict", "figure"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["missing", "garbage", "older"])
def test_the_index_is_made_again_from_the_files(tmp_path: Path, damage: str) -> None:
    record(tmp_path, 1, 3)
    assert history(tmp_path).series("size") == [(1.0, 3.0)]
    if damage == "missing":
        (tmp_path / INDEX).unlink()
    elif damage == "garbage":
        (tmp_path / INDEX).write_bytes(b"not a database at all" * 1000)
    else:
        with sqlite3.connect(tmp_path / INDEX) as index:
            index.execute("pragma user_version = 0")
            index.execute("drop table figure")
    record(tmp_path, 2, 2)
    assert history(tmp_path).series("size") == [(2.0, 2.0), (1.0, 3.0)]


def test_a_file_taken_away_is_forgotten(tmp_path: Path) -> None:
    record(tmp_path, 1, 3)
    gone = record(tmp_path, 2, 2)
    assert len(history(tmp_path).series("size")) == 2
    gone.unlink()
    assert history(tmp_path).series("size") == [(1.0, 3.0)]


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", "no json\n", '{"kind": "run"}\n', "\xff"])
def test_a_file_that_is_no_runs_is_named_and_not_passed_over(tmp_path: Path, text: str) -> None:
    record(tmp_path, 1, 3)
    (tmp_path / "mine.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotVerified, match=r"mine\.jsonl in .* move it away"):
        history(tmp_path).series("size")


@pytest.mark.parametrize("value", ["1" + "0" * 30, "NaN", "-Infinity", "1e999", "true", "null", '"1"', "[1]", "{}"])
def test_a_figure_that_is_no_number_to_reckon_with_makes_a_file_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    rewritten(record(tmp_path, 1, 3.25), "3.25", value)
    with pytest.raises(NotVerified, match=r"\.jsonl in .* is not a run's file of pgconform; move it away"):
        past(history(tmp_path))
    assert main(["history", f"--history={tmp_path}"]) == 4
    assert "is not a run's file of pgconform; move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ('"subject": ""', '"subject": 1'),
        ('"name": "size"', '"name": "\\ud800"'),
        ('"findings": []', '"findings": [[]]'),
        ('"findings": []', '"findings": "none"'),
        ('"status": 2', '"status": 0.5'),
        ('"started": 1', '"started": 99999'),
        pytest.param('"seconds": 0.0', '"seconds": ' + "[" * 100_000, id="deep"),
        ('"unit": "GB"', '"unit": null'),
    ],
)
def test_a_line_with_a_value_of_another_kind_makes_a_file_no_runs(tmp_path: Path, text: str, odd: str) -> None:
    rewritten(record(tmp_path, 1, 3), text, odd)
    with pytest.raises(NotVerified, match="is not a run's file"):
        history(tmp_path).series("size")


def rewritten(path: Path, text: str, other: str) -> None:
    """A run's file that somebody has changed in one place."""
    before = path.read_text()
    assert text in before
    path.chmod(0o644)
    path.write_text(before.replace(text, other))


def test_a_file_that_was_damaged_since_it_was_indexed_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path, 1, 3)
    assert past(history(tmp_path))
    whole = path.read_text()
    rewritten(path, whole, whole[:-50])
    with pytest.raises(NotVerified, match=rf"{path.name} in .* is not a run's file"):
        history(tmp_path).series("size")
    rewritten(path, whole[:-50], whole)
    assert history(tmp_path).series("size") == [(1.0, 3.0)]
    rewritten(path, whole, whole[:-50])
    monkeypatch.setattr("pgconform.history.indexed", lambda _: sqlite3.connect(tmp_path / INDEX))  # just before that
    with pytest.raises(NotVerified, match=rf"{path.name} in .* is not a run's file"):
        past(history(tmp_path))


def test_a_damaged_history_is_a_trouble_of_the_next_run(references: Server, tmp_path: Path) -> None:
    asked = [f"--target=live:{references.dsn('muva')}", "--contract=muva", "-k", "tables-exist"]
    asked.append(f"--history={tmp_path / 'history'}")
    assert run(*asked, out=tmp_path).returncode == 0
    (path,) = (tmp_path / "history").glob("*.jsonl")
    assert main(["history", f"--history={tmp_path / 'history'}"]) == 0  # which indexes it
    rewritten(path, whole := path.read_text(), whole[:-50])
    done = run(*asked, out=tmp_path)
    assert done.returncode == 3, done.stdout
    assert f"{path.name} in {tmp_path / 'history'} is not a run's file" in done.stdout
    assert "Unterminated" not in done.stdout + done.stderr


def test_a_figure_that_no_later_run_could_read_is_not_recorded(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf"), 10.0**30):
        append_figures(tmp_path, NOW, "shop", "d", 0, [Figure("odd", value), Figure("size", 3)])
        assert indexed(tmp_path).execute("select name, value from figure").fetchall() == [("size", 3.0)]


def test_several_processes_may_ask_at_once(tmp_path: Path) -> None:
    for days in range(1, 30):
        record(tmp_path, days, days)
    lengths: list[int] = []
    threads = [Thread(target=lambda: lengths.append(len(history(tmp_path).series("size")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [29] * 8


def test_a_history_that_cannot_be_written_to_is_read_in_memory(tmp_path: Path) -> None:
    record(tmp_path, 1, 3)
    (tmp_path / INDEX).mkdir()  # nobody, not even root, can open that
    assert history(tmp_path).series("size") == [(1.0, 3.0)]


def test_a_run_that_cannot_be_recorded_leaves_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="ot a directory"):
        record(tmp_path / "file" / "below", 1, 3)
    run = Run((Contract(name="shop"),), started=NOW)
    run.results = [Result("a-check", "shop", Verdict.PASSED, figures=(Figure("size", object()),))]  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        append(tmp_path / "history", run, {})
    assert list((tmp_path / "history").iterdir()) == []


def test_the_command_shows_runs_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for days in (3, 2, 1):
        record(tmp_path, days, 4 - days)
    assert main(["history", f"--history={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert "shop, database d" in told
    assert "▁▄█ 3 GB  size" in told.replace("▅", "▄")
    assert main(["history", f"--history={tmp_path}", "size"]) == 0
    assert "    2026-10-31 00:00  3" in capsys.readouterr().out
    assert main(["history", f"--history={tmp_path}", "--format=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [value for _, value in document["figures"][0]["values"]] == [1, 2, 3]
    assert main(["history", f"--history={tmp_path}", "nothing"]) == 4
    assert main(["history", f"--history={tmp_path / 'nowhere'}"]) == 4
    assert "name the directory with --history=" in capsys.readouterr().err


def test_advice_is_no_failure_and_lines_of_earlier_versions_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run((Contract(name="shop"),), started=NOW)
    found = (Finding("t", "off", ""),)
    run.results = [Result("a", "shop", Verdict.PASSED), Result("b", "shop", Verdict.FAILED, findings=found)]
    run.results.append(Result("c", "shop", Verdict.FAILED, severity=Severity.SHOULD, findings=found))
    written = append(tmp_path, run, {})
    assert main(["history", f"--history={tmp_path}"]) == 0
    assert ": 1 advice, 1 failed, 1 passed\n" in capsys.readouterr().out
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    for line in lines:
        line.pop("severity", None)
    written.unlink()
    (tmp_path / "older.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["history", f"--history={tmp_path}", "--format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["verdicts"] == {"failed": 2, "passed": 1}


def test_an_index_of_nothing_is_empty(tmp_path: Path) -> None:
    assert indexed(tmp_path).execute("select count(*) from run").fetchone() == (0,)


def test_the_last_runs_figures_go_into_the_metrics_table_once_and_only_when_asked(
    references: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = "select count(*), count(distinct metric_value) from public.db_metrics where metric_name = 'disk_bytes'"
    with clone(references, "victorysync") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(count).fetchone()
        place = [f"--target=live:{dsn}", f"--history={tmp_path / 'history'}", "--contract=victorysync"]
        assert main(["metrics", *place]) == 4
        assert "run pgconform first" in capsys.readouterr().err
        assert (
            main(
                [
                    "run",
                    *place,
                    f"--out={tmp_path / 'out'}",
                    "-k",
                    "days-to-full or tables-exist",
                    "-p",
                    "no:cacheprovider",
                ]
            )
            == 0
        )
        assert main(["metrics", *place]) == 0
        assert "disk_bytes" in capsys.readouterr().out
        assert connection.execute(count).fetchone() == before
        assert main(["metrics", *place, "--write"]) == 0
        assert "1 row(s) written to public.db_metrics" in capsys.readouterr().out
        assert main(["metrics", *place, "--write"]) == 0
        assert "0 row(s) written" in capsys.readouterr().out
        assert before is not None
        assert connection.execute(count).fetchone() == (before[0] + 1, before[1] + 1)
        connection.execute("create role reads_only login bypassrls; grant pg_read_all_data to reads_only")
        poor = "--target=live:" + dsn.replace("user='postgres'", "user='reads_only'")
        connection.execute("delete from public.db_metrics")
        assert main(["metrics", *place[1:], poor, "--write"]) == 4
        assert (
            "permission denied for table db_metrics (SQLSTATE 42501); grant SELECT and INSERT on it"
            in capsys.readouterr().err
        )
        connection.execute("drop owned by reads_only; drop role reads_only")
    assert main(["metrics", "--contract=muva", f"--target=live:{references.dsn('muva')}"]) == 4
    assert "maps no metric to a figure" in capsys.readouterr().err


def test_a_mapped_figure_that_was_not_measured_is_told_with_the_nearest_name(
    references: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = tmp_path / "contract.toml"
    figures = 'a = "database size", b = "databsae size", c = "something else", d = "size of a"'
    contract.write_text(f'name = "shop"\n[metrics]\ntable = "public.m"\nfigures = {{ {figures} }}\n')
    with psycopg.connect(references.dsn("muva"), autocommit=True) as connection:
        identity = _identity(Database(connection))
    for days, names in ((1, ["size of a"]), (0, ["database size"])):
        run = Run((Contract(name="shop"),), started=NOW - timedelta(days=days))
        run.results = [Result("c", "shop", Verdict.PASSED, figures=tuple(Figure(name, 1) for name in names))]
        append(tmp_path / "history", run, {"shop": identity})
    place = [f"--target=live:{references.dsn('muva')}", f"--contract={contract}", f"--history={tmp_path / 'history'}"]
    assert main(["metrics", *place]) == 0
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["a"]
    assert shown.err.splitlines() == [
        "pgconform: b: no run has measured 'databsae size'; did you mean 'database size'?",
        "pgconform: c: no run has measured 'something else'; pgconform history lists what runs measure",
        "pgconform: d: the last recorded run did not measure 'size of a', as earlier ones did",
    ]
    contract.write_text(contract.read_text().replace('"database size"', '"database sise"'))
    assert main(["metrics", *place]) == 4
    assert "none of the mapped figures: a: no run has measured 'database sise'; did you" in capsys.readouterr().err


def test_a_role_that_row_security_binds_is_told_what_lets_it_write(
    references: Server,
) -> None:
    contract, found = contract_of("victorysync"), [Row("disk_bytes", 1.0, NOW)]
    with clone(references, "victorysync") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "create role logger login; grant usage on schema public to logger;"
            " grant select, insert on public.db_metrics to logger;"
            " alter table public.db_metrics enable row level security;"
            " create policy everything on public.db_metrics to logger using (true) with check (true)"
        )
        with psycopg.connect(dsn.replace("user='postgres'", "user='logger'"), autocommit=True) as theirs:
            begin(theirs, contract.limits, read_only=False)
            with pytest.raises(Mistake, match=r"row security may hide its rows; give the role .* BYPASSRLS") as refused:
                write(Database(theirs), contract, found)
            assert "grant" not in str(refused.value)
            theirs.execute("rollback")
            connection.execute("alter role logger bypassrls")
            begin(theirs, contract.limits, read_only=False)
            assert write(Database(theirs), contract, found) == "1 row(s) written to public.db_metrics"
            theirs.execute("rollback")
            connection.execute("alter table public.db_metrics rename to elsewhere")
            begin(theirs, contract.limits, read_only=False)
            with pytest.raises(Mistake, match=r"does not exist .*; compare it with \[metrics\] in the contract"):
                write(Database(theirs), contract, found)
            theirs.execute("rollback")
        connection.execute("drop owned by logger; drop role logger")


def test_each_check_is_compared_with_the_last_run_that_asked_it(tmp_path: Path) -> None:
    """A part that was run in between, or a benchmark, hides nothing."""

    def ran(days: float, **found: str) -> None:
        run = Run((Contract(name="shop"),), started=NOW - timedelta(days=days))
        for check, key in found.items():
            findings = (Finding(key, "x", ""),) if key else ()
            verdict = Verdict.FAILED if key else Verdict.PASSED
            run.results.append(Result(check, "shop", verdict, findings=findings, figures=(Figure(check, days),)))
        append(tmp_path, run, {"shop": "d"})

    assert past(history(tmp_path)) is None
    ran(3, one="public.a", two="public.b")
    ran(2, two="")
    measured = [Figure("search of f: recall", 0.9)]
    append_figures(tmp_path, NOW - timedelta(days=1), "shop", "d", 0, measured)
    append_figures(tmp_path, NOW - timedelta(days=1, seconds=1), "shop", "other", 0, measured)
    before = past(history(tmp_path))
    assert before is not None
    assert before.started == (NOW - timedelta(days=2)).timestamp()
    assert before.keys == {("one", ""): frozenset({"public.a"}), ("two", ""): frozenset()}
    assert before.verdicts == {("one", ""): ("failed", ""), ("two", ""): ("failed", "passed")}
    assert {name: [value for _, value in values] for name, values in before.figures.items()} == {
        "one": [3.0], "two": [3.0, 2.0], "search of f: recall": [0.9],
    }  # fmt: skip
    assert history(tmp_path).last() == 2.0
    latest = history(tmp_path).latest()
    assert latest is not None
    assert latest[1] == {"two": 2.0}, "a benchmark is no run: metrics are written of runs"
    assert history(tmp_path).series("search of f: recall") == [(1.0, 0.9)]
