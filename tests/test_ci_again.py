"""What CI may run once more: a few failures of a run in which everything ran, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "again"
WHOLE = "3 workers [12 items]\n{noise}\n===== {closing} in 1869.50s (0:31:09) =====\nmake: *** [test] Error 1\n"
TWO = ["tests/test_a.py::test_b[it's one - two]", "tests/test_a.py::test_c"]


@pytest.mark.parametrize(
    ("closing", "failed", "told"),
    [
        ("2 failed, 8 passed, 2 skipped", TWO, ""),
        ("1 failed, 11 passed", TWO[:1], ""),
        (
            "4 failed, 8 passed",
            [f"tests/test_a.py::test_{n}" for n in range(4)],
            "4 failed, of which 4 are known; chance",
        ),
        ("2 failed, 8 passed", TWO, "not every test ran"),  # a worker died
        ("2 failed, 8 passed, 2 errors", TWO, "not every test ran, or one could not begin"),
        ("1 error", ["tests/test_a.py"], "not every test ran, or one could not begin"),
        ("2 failed, 10 passed", TWO[:1], "2 failed"),  # of another run
        ("12 passed", [], "0 failed"),
    ],
)
def test_only_a_few_failures_of_a_whole_run_are_run_again(
    tmp_path: Path, closing: str, failed: list[str], told: str
) -> None:
    (tmp_path / "log").write_text(WHOLE.format(noise="E   1 failed in 3s", closing=closing), encoding="utf-8")
    done = again(tmp_path, failed)
    assert (done.returncode, done.stdout) == ((1, "") if told else (0, "\n".join(failed) + "\n")), done.stderr
    assert told in done.stderr


def test_a_run_that_did_not_end_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("3 workers [12 items]\n....\nKilled\n", encoding="utf-8")
    assert again(tmp_path, TWO).returncode == 1


def again(folder: Path, failed: list[str]) -> subprocess.CompletedProcess[str]:
    cache = folder / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)), encoding="utf-8")
    return subprocess.run([sys.executable, str(SCRIPT), "log"], cwd=folder, capture_output=True, text=True, check=False)
