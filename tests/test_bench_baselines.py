"""Baselines of searches: what never becomes one unless it is forced, and what is compared where machines differ."""

from __future__ import annotations

import copy
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest

from benchmarks.shop import _RAW, INDEX, benched, fill
from pgconform.contract import Limits
from pgconform.contract_file import validate
from pgconform.database import begin
from pgconform.drafting.page import value
from pgconform.targets.server import Server
from pgconform.vectors.baseline import Baseline, load
from pgconform.vectors.bench import Outcome, Wanted
from reports.bench import as_text

SEARCH = "shop.search"
# A second search, for what is measured in part.
OTHER = """
create function shop.other(q public.vector, shop text, threshold float8, n int, more text)
returns table (id bigint, similarity float8) language sql stable as 'select 1::bigint, 1::float8';
"""
BRIEF = Wanted(10, (), False, pace=0.1)
QUICK = ["--queries=10", "--clients=1", "--no-curves"]


@pytest.fixture(scope="module")
def dsn(references: Server) -> str:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("create database baselines")
    with psycopg.connect(references.dsn("baselines"), autocommit=True) as connection:
        fill(connection)
        connection.execute(OTHER)
    return references.dsn("baselines")


def changed_raw(change: Callable[[Any], object]) -> dict[str, Any]:
    raw = copy.deepcopy(_RAW)
    change(raw["functions"])
    return raw


def bench(dsn: str, folder: Path, change: Callable[[Any], object], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed, by the shop's contract with that change."""
    path = folder / "shop.toml"
    text = "".join(f"{key} = {value(item)}\n" for key, item in changed_raw(change).items())
    path.write_text(text, encoding="utf-8")
    asked = ["bench", f"--contract={path}", f"--target=live:{dsn}", f"--baseline={folder}", *QUICK, *arguments]
    env = {name: told for name, told in os.environ.items() if not name.startswith("PGC_")}
    command = [sys.executable, "-m", "pgconform", *asked]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def slow(functions: Any) -> None:
    functions[SEARCH]["search"]["latency_ms"] = 0.000001


def lost(functions: Any) -> None:
    functions["shop.gone"] = functions[SEARCH]


def unasked(function: Any) -> Any:
    """A search that cannot be asked: it filters by a column that is not there."""
    arguments = [*function["arguments"], {"name": "more", "type": "text"}]
    return function | {"arguments": arguments, "search": function["search"] | {"filters": {"more": "gone"}}}


def in_part(functions: Any) -> None:
    functions["shop.other"] = unasked(functions[SEARCH])


def none(functions: Any) -> None:
    functions[SEARCH] = unasked(functions[SEARCH])


# What is changed in the contract, how much may be begun, and why it is refused; whether anything was measured.
REFUSED: dict[str, tuple[Callable[[Any], object], float, str, bool]] = {
    "a problem": (slow, math.inf, "it has problems (latency)", True),
    "a lost search": (lost, math.inf, "it has problems (absent)", True),
    "a search that cannot be asked": (in_part, math.inf, "it could not be measured in full (shop.other)", True),
    "only such searches": (none, math.inf, "it could not be measured in full (shop.search)", False),
    "no time": (len, 0.5, "it was not measured to the end", False),
    "some time": (len, 2, "it was not measured to the end", True),
    "all is well": (len, math.inf, "", True),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sound_and_whole_is_no_baseline(
    shop: psycopg.Connection[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, begun, why, anything = REFUSED[name]
    # A clock that goes on by one when it is asked, which it is before anything is begun: no machine is too fast.
    monkeypatch.setattr("pgconform.vectors.bench.time", SimpleNamespace(monotonic=itertools.count().__next__))
    outcome = benched(shop, wanted=replace(BRIEF, seconds=begun), promised=validate(changed_raw(change), "shop.toml"))
    assert (outcome.refusal, bool(outcome.now.cases)) == (why, anything)


def test_only_force_makes_a_baseline_of_what_is_refused(dsn: str, tmp_path: Path) -> None:
    kept = tmp_path / "shop.json"
    done = bench(dsn, tmp_path, slow, "--update-baseline")
    assert (done.returncode, kept.exists()) == (1, False), done.stdout
    why = "the baseline of shop is not updated: it has problems (latency); --force updates it\n"
    assert done.stderr == why
    forced = bench(dsn, tmp_path, slow, "--update-baseline", "--force")
    assert forced.stderr == f"the baseline of shop is {kept}\n"
    assert (forced.returncode, len(load(kept).cases)) == (1, 4)


def test_nothing_is_no_baseline_not_even_by_force(dsn: str, tmp_path: Path) -> None:
    kept = tmp_path / "shop.json"
    kept.write_text("no baseline")
    done = bench(dsn, tmp_path, none, "--update-baseline", "--force")
    assert done.stderr == "the baseline of shop is not updated: it could not be measured in full (shop.search)\n"
    assert (done.returncode, kept.read_text()) == (3, "no baseline")
    unread = bench(dsn, tmp_path, len, "--compare")
    assert (unread.returncode, unread.stdout) == (4, "")
    assert unread.stderr.endswith("shop.json: not a baseline; make one with --update-baseline\n")
    both = bench(dsn, tmp_path, len, "--compare", "--update-baseline")
    assert both.returncode == 4
    assert "not allowed with argument" in both.stderr


@pytest.fixture
def shop(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        begin(connection, Limits(), read_only=False)
        yield connection
        connection.execute("rollback")


def changed(before: Baseline, **parts: Any) -> Baseline:
    """The baseline as if all cases had been so."""
    cases = {name: msgspec.structs.replace(case, **parts) for name, case in before.cases.items()}
    return msgspec.structs.replace(before, cases=cases)


def test_a_dropped_index_makes_no_other_class_and_is_named(dsn: str) -> None:
    """pgvector's settings are unknown to a session that has not loaded it; nothing loads it where no index is left."""

    def fresh() -> Outcome:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
            begin(connection, Limits())
            return benched(connection, before, BRIEF)

    before: Baseline | None = None
    before = fresh().now
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("drop index shop.texts_idx")
        try:
            after = fresh()
        finally:
            other.execute(INDEX)
    assert {"hnsw.ef_search", "ivfflat.probes"} <= before.circumstances.settings.keys()
    assert after.differences == []
    causes = {(p.kind, p.cause.partition(";")[0]) for p in after.problems}
    assert ("index", "there is no approximate index") in causes


def test_of_another_class_only_ratios_are_compared_and_it_says_so(shop: psycopg.Connection[Any]) -> None:
    before = benched(shop, wanted=BRIEF).now
    elsewhere = msgspec.structs.replace(before.circumstances, machine="64 x other", server="18.1")
    few_pages = changed(before, buffers=1.0)
    assert "buffers" in {p.kind for p in benched(shop, few_pages, BRIEF).problems}, (
        "in the same class they are compared"
    )
    other = msgspec.structs.replace(few_pages, circumstances=elsewhere)
    outcome = benched(shop, other, BRIEF)
    assert (outcome.problems, outcome.differences) == ([], ["server", "machine"])
    told = "the baseline is of another class (server, machine): times are compared as ratios, pages not at all"
    assert told in as_text(outcome).splitlines()
    assert told not in as_text(benched(shop, before, BRIEF))
    faster = benched(shop, changed(other, ratio=0.01, p50=9e9, p95=9e9, cold=9e9), BRIEF)
    assert {p.kind for p in faster.problems} == {"time"}
    worse = benched(shop, changed(other, recall=1.06), BRIEF)
    assert {p.kind for p in worse.problems} == {"recall"}
