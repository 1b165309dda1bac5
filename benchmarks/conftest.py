"""What all benchmarks share: figures beside their limits, told as they come, kept in the history, one table at the end.

A benchmark fails where a figure exceeds its limit, and the others run all the same. ``--long`` asks for the full sizes;
with ``--tell`` only errors fail.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pgconform.history import INDEX, append_figures
from pgconform.model import Figure
from pgconform.vectors.baseline import machine

Result = TypeVar("Result")
BUDGET = 8.0  # seconds that the rounds of a benchmark may take in the short form
CONTRACT = "benchmarks"  # as the history calls their runs
RESULTS: pytest.StashKey[Results] = pytest.StashKey()


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``limit`` is the least that it may be where ``least``, else the most; None where all is well.
    One that is not ``shown`` is kept all the same, and shown where it exceeds its limit."""

    name: str
    value: float
    unit: str
    limit: float | None
    least: bool
    shown: bool

    @property
    def ok(self) -> bool:
        return self.limit is None or (self.value >= self.limit if self.least else self.value <= self.limit)

    def __str__(self) -> str:
        bound = "" if self.limit is None else f"{'≥' if self.least else '≤'} {self.limit:,g}"
        said = "" if self.limit is None else "ok" if self.ok else "EXCEEDED"
        return f"{self.name:<66} {number(self.value):>10} {self.unit:<6} {bound:>9}  {said}".rstrip()


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass
class Results:
    """The run's rows, and where they are kept: one file of the history, replaced whole whenever a figure comes."""

    form: str
    folder: Path | None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if self.folder:
            figures = [Figure(row.name, row.value, row.unit) for row in self.rows]
            append_figures(self.folder, self.started, CONTRACT, f"{machine()}, {self.form}", self.status, figures)

    @property
    def status(self) -> int:
        return int(not all(row.ok for row in self.rows))


class Measured:
    """What a benchmark measures; ``long`` where the full sizes are asked for."""

    def __init__(self, benchmark: BenchmarkFixture, results: Results, say: Callable[[object], None]) -> None:
        self._benchmark, self._results, self.say = benchmark, results, say
        self.long = results.form == "long"
        self.exceeded: list[Row] = []

    def rounds(self, call: Callable[[], Result], count: int) -> list[Result]:
        """Calls it so many times, timed by pytest-benchmark; returns what the calls returned.

        Where that is several times, one more warms up and is forgotten; and where that one shows that the machine is
        too busy for a short form of some minutes, there are fewer rounds, one at the least.
        """
        if count > 1:
            started = time.perf_counter()
            call()
            took = time.perf_counter() - started
            count = count if self.long else max(1, min(count, int(BUDGET / took)))
        told: list[Result] = []
        self._benchmark.pedantic(lambda: told.append(call()), rounds=count)  # type: ignore[no-untyped-call]
        return told

    def confirmed(self, call: Callable[[], Result], count: int, fine: Callable[[list[Result]], bool]) -> list[Result]:
        """As ``rounds``, and up to twice as many more where what they told is not fine: other work makes single rounds
        slow, a regression all of them. The short form gives up after some seconds."""
        told = self.rounds(call, count)
        until = time.perf_counter() + BUDGET
        for _ in range(2 * count):
            if fine(told) or (time.perf_counter() > until and not self.long):
                break
            told.append(call())
        return told

    @property
    def median(self) -> float:
        """Seconds of a round."""
        assert self._benchmark.stats, "benchmarks measure nothing under xdist: give -n0"
        return float(self._benchmark.stats.stats.median)

    def row(
        self, name: str, value: float, unit: str = "", most: float | None = None, least: float | None = None,
        shown: bool = True,
    ) -> None:  # fmt: skip
        """One figure, with the most or the least that it may be."""
        row = Row(name, float(value), unit, most if least is None else least, least is not None, shown)
        self._benchmark.extra_info[name] = {"value": row.value, "unit": unit, "limit": row.limit, "ok": row.ok}
        self._results.add(row)
        if row.shown or not row.ok:
            self.say(row)
        if not row.ok:
            self.exceeded.append(row)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the full sizes: takes an hour")
    told = "limits are told, not judged: where others use the machine, too"
    parser.addoption("--tell", action="store_true", help=told)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a benchmark of the long form alone")
    folder = os.environ.get("PGC_HISTORY") or "reports/history"
    kept = None if folder == "none" else Path(folder)
    config.stash[RESULTS] = Results("long" if config.getoption("long") else "short", kept)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("long"):
        return
    left = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture
def measured(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> Measured:
    """Judged after the test, by the hook below."""
    results = request.config.stash[RESULTS]

    def say(text: object) -> None:
        with capfd.disabled():
            passed = (datetime.now(UTC) - results.started).total_seconds()
            print(f"\n{passed:>6.0f} s  {text}", end="", flush=True)

    say(request.node.name)
    return Measured(benchmark, results, say)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    found = getattr(item, "funcargs", {}).get("measured")
    if found and found.exceeded and not item.config.getoption("tell"):
        pytest.fail("limits are exceeded:\n" + "\n".join(map(str, found.exceeded)), pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    terminalreporter.section(f"benchmarks, {results.form} form, {machine()}")
    for row in (row for row in results.rows if row.shown or not row.ok):
        terminalreporter.write_line(str(row))
    took = time.time() - results.started.timestamp()
    bad = sum(not row.ok for row in results.rows)
    terminalreporter.write_line(
        f"{len(results.rows)} figures, {bad} beyond their limits, in {took:.0f} s,"
        f" at a load of {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors"
    )
    if results.folder and (results.folder / INDEX).exists():
        (results.folder / INDEX).unlink()  # whoever looked meanwhile has indexed a part of this run's file
