"""What all benchmarks share: every figure kept as it comes, one table, an exit status. No server, nothing measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import test_probes
from benchmarks.conftest import Row
from benchmarks.processes import apart, interpreter
from pgconform.catalogue_of_checks import load

ROOT = Path(__file__).parent.parent
OWN = """
import os, signal, time, pytest

def test_exceeds(measured):
    assert measured.rounds(lambda: 7, 2) == [7, 7]
    measured.row("seconds of one", 2.0, "s", most=1.5)
    measured.row("a detail", 1.0, shown=False)

def test_keeps(measured):
    measured.rounds(lambda: None, 1)
    measured.row("speed of two", 3.0, "x", least=2.5)

@pytest.mark.long
def test_stays(measured):
    measured.rounds(lambda: time.sleep(60), 1)
"""


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    (folder / "test_own.py").write_text(OWN, encoding="ascii")
    command = [
        sys.executable, "-m", "pytest", "-p", "benchmarks.conftest", "-p", "no:cacheprovider", "-n0",
        "--benchmark-only", "--benchmark-quiet", f"--rootdir={folder}", str(folder), *options,
    ]  # fmt: skip
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # xdist's, too
    environment = {**outer, "PGC_HISTORY": str(folder / "history"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)


def kept(folder: Path) -> dict[str, float]:
    """The figures in the only file of the history."""
    (file,) = (folder / "history").glob("*.jsonl")
    about, *lines = map(json.loads, file.read_text(encoding="ascii").splitlines())
    assert (about["contract"], about["status"]) == ("benchmarks", 1)
    return {line["name"]: line["value"] for line in lines}


def test_a_figure_beyond_its_limit_fails_the_run_and_the_others_are_measured_all_the_same(tmp_path: Path) -> None:
    said, _ = (run := started(tmp_path)).communicate(timeout=600)
    assert run.returncode == 1, said
    assert kept(tmp_path) == {"seconds of one": 2, "a detail": 1, "speed of two": 3}
    table = said[said.index("benchmarks, short form") :].splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["seconds", "of", "one", "2", "s", "≤", "1.5", "EXCEEDED"], ["speed", "of", "two", "3", "x", "≥", "2.5", "ok"],
    ]  # fmt: skip
    assert table[3].startswith("3 figures, 1 beyond their limits, in ")
    assert "1 failed, 1 passed, 1 deselected" in table[-1]


def test_a_run_that_is_killed_keeps_what_it_measured(tmp_path: Path) -> None:
    run = started(tmp_path, "--long")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "history").glob("*.jsonl"))) != 1 or len(kept(tmp_path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=600)
    assert kept(tmp_path) == {"seconds of one": 2, "a detail": 1, "speed of two": 3}


@pytest.mark.parametrize("least", [False, True])
def test_the_limit_itself_is_within(least: bool) -> None:
    for value, ok in ((1.5, True), (1.51, least), (1.49, not least)):
        assert Row("r", value, "", 1.5, least, True).ok is ok
    assert Row("r", 99.0, "", None, least, True).ok


def test_every_question_to_the_data_is_measured() -> None:
    measured = {check.id for _, check, _ in test_probes.cases(test_probes.CONTRACT)}
    assert {check.id for check in test_probes.data_checks()} == measured
    assert set(load()) > test_probes.SMALL


def test_work_apart_is_measured_in_a_process_of_its_own() -> None:
    assert apart("operator:mul", 6, 7).told == 42
    taken = apart("tests.test_benchmarks:take", 50)
    assert 50 <= taken.peak - interpreter() < 150


def take(megabytes: int) -> int:
    return len(bytearray(b"x") * (megabytes * 2**20))
