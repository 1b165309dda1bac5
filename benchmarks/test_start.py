"""How long our programs take to begin, and what a run takes: seconds and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Measured
from .processes import apart

# Seconds, on a machine that does something else, too: an import that is not needed at once shows. The command without
# its engine takes less than half of it on a quiet one.
STARTS = {
    "pgconform --version": ([sys.executable, "-m", "pgconform", "--version"], 1.0),
    "pgconform --help": ([sys.executable, "-m", "pgconform", "--help"], 1.0),
    "collecting the suites": ([sys.executable, "-m", "pytest", "suites", "--collect-only", "-q"], 8.0),
}
MEMORY_MB = 300  # of a run's process
ISOLATION_SECONDS = 90  # both reference databases


@pytest.mark.parametrize("name", STARTS)
def test_programs_begin_at_once(measured: Measured, name: str) -> None:
    command, limit = STARTS[name]
    measured.rounds(lambda: subprocess.run(command, check=True, capture_output=True), 5)
    measured.row(f"start: {name}", measured.median, "s", limit)


@pytest.mark.parametrize(
    "what, limit", [("gate", None), pytest.param("isolation", ISOLATION_SECONDS, marks=pytest.mark.long)]
)
def test_a_run_takes_bounded_time_and_memory(
    measured: Measured, tmp_path: Path, what: str, limit: float | None
) -> None:
    asked = ["-m", "gate"] if what == "gate" else ["-k", "isolation"]
    given = ["run", f"--out={tmp_path}", "--history=none", *asked]
    (run,) = measured.rounds(lambda: apart("pgconform.cli:main", given), 1)
    assert run.told in (0, 1)
    measured.row(f"run of {what} on both reference databases", run.seconds, "s", limit)
    measured.row(f"run of {what} on both reference databases: memory", run.peak, "MB", MEMORY_MB)
