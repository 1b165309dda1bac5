"""Gates and baselines of the search benchmark, without a database."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy
import pytest

from pgconform.contract_vectors import Search, Vector
from pgconform.model import Mistake
from pgconform.vectors import baseline, cases
from pgconform.vectors.absent import like, unmatched
from pgconform.vectors.baseline import Baseline, Circumstances
from pgconform.vectors.bench import Wanted
from pgconform.vectors.gates import compared, promised
from pgconform.vectors.measuring import Measured, Tried, fingerprint, paced, quantile
from pgconform.vectors.sweep import Point, curve, good, settings

SPEC = Search("a.b.v", "q")
SOUND = Measured(
    case="a.f, largest tenant", rows=20_000, asked=10, queries=40, returned=10, expected=10, short=0, recall=0.97,
    worst=0.8, foreign=0, under=0, unordered=0, misjudged=0, cold=9, samples=400, p50=2, p95=4, p99=6, ratio=4,
    buffers=500, scanned=1, scanned_later=1, plan="hnsw index i", method="hnsw",
)  # fmt: skip
WORSE = {
    "foreign": (1, "foreign rows"), "under": (2, "threshold"), "unordered": (1, "order"),
    "misjudged": (1, "similarity"), "over": (1, "count"), "repeated": (3, "count"),
    "short": (1, "rows"), "recall": (0.89, "recall"), "scanned_later": (0.0, "generic plan"), "p95": (3001, "latency"),
}  # fmt: skip


def changed(**parts: object) -> Measured:
    return msgspec.structs.replace(SOUND, **parts)


def test_what_is_sound_breaks_nothing() -> None:
    assert list(promised(SOUND, SPEC)) == []
    assert list(compared(SOUND, SOUND, True)) == []
    small = changed(rows=9999, scanned=0, scanned_later=0)
    assert list(promised(small, SPEC)) == []  # reading few rows is cheaper than any index


@pytest.mark.parametrize("field", WORSE)
def test_each_broken_promise_is_one_problem(field: str) -> None:
    value, kind = WORSE[field]
    assert [p.kind for p in promised(changed(**{field: value}), SPEC)] == [kind]


def test_an_index_that_is_never_scanned_is_a_problem_of_large_tenants() -> None:
    assert [p.kind for p in promised(changed(scanned=0, scanned_later=0), SPEC)] == ["index"]


@pytest.mark.parametrize("change, kinds", [
    ({"scanned": 0, "scanned_later": 0}, ["index"]), ({"recall": 0.91}, ["recall"]), ({"recall": 0.93}, []),
    ({"buffers": 600}, ["buffers"]), ({"buffers": 540}, []), ({"method": "ivfflat", "buffers": 600}, ["buffers"]),
    ({"ratio": 5.4}, ["time"]), ({"ratio": 5.2}, []), ({"plan": "sequential scan"}, []),
    ({"rows": 30_000, "buffers": 900}, []), ({"p95": 400}, []),
])  # fmt: skip
def test_what_is_worse_than_the_baseline(change: dict[str, object], kinds: list[str]) -> None:
    assert [p.kind for p in compared(changed(**change), SOUND, True)] == kinds


def test_an_index_that_is_gone_is_told_also_where_the_rows_are_too_few_to_need_it() -> None:
    few = changed(rows=90, scanned=0, scanned_later=0, plan="sequential scan")
    gone = msgspec.structs.replace(few, method="")
    told = ["there is no approximate index, valid and for this distance; in the baseline there is one (hnsw)"]
    assert [p.observed for p in compared(gone, few, True)] == told
    assert list(compared(gone, gone, True)) == []
    assert [p.kind for p in compared(msgspec.structs.replace(SOUND, scanned=0, scanned_later=0, method=""), SOUND, True)
            ] == ["index"], "once"  # fmt: skip


BIG = changed(rows=20_000, total=100_000)


@pytest.mark.parametrize("change, kinds", [
    ({"total": 300_000, "buffers": 1500, "ratio": 12.0}, []),  # others have grown, and the search with them
    ({"total": 300_000, "ratio": 18.0}, ["time"]),  # more than all growth explains
    ({"rows": 60_000, "total": 140_000, "ratio": 12.0}, []),
    ({"total": 105_000, "buffers": 900}, ["buffers"]), ({"total": 50_000, "ratio": 7.0}, ["time"]),
])  # fmt: skip
def test_growth_explains_as_much_more_time_as_there_are_more_rows(change: dict[str, object], kinds: list[str]) -> None:
    assert [p.kind for p in compared(msgspec.structs.replace(BIG, **change), BIG, True)] == kinds
    known = changed(rows=20_000, buffers=500)  # a baseline that did not say how many rows there were
    assert list(compared(BIG, known, True)) == []


def test_somebody_without_a_row_grows_with_the_table() -> None:
    nobody = changed(rows=0, total=6000, ratio=12.0, buffers=200)
    threefold = msgspec.structs.replace(nobody, total=18_000, ratio=36.0, buffers=600)
    assert list(compared(threefold, nobody, True)) == []
    assert [p.kind for p in compared(msgspec.structs.replace(nobody, ratio=36.0), nobody, True)] == ["time"]


def test_a_case_is_found_by_any_share_that_it_stands_for() -> None:
    where = Circumstances("16.14", "0.8.5", "2 x processor", {})
    both = changed(case="a.f, smallest tenant", also=("tenant with 1 %",))
    one, other = changed(case="a.f, smallest tenant"), changed(case="a.f, tenant with 1 %")
    then = Baseline("shop", where, {both.case: both})
    assert [like(found, then) for found in (one, other, both, SOUND)] == [both, both, both, None]
    apart = Baseline("shop", where, {found.case: found for found in (one, other)})
    assert [like(found, apart) for found in (one, other, both)] == [one, other, one]
    assert unmatched(then, [one, other]) == unmatched(apart, [both]) == []
    assert unmatched(apart, [one]) == ["a.f, tenant with 1 %: nobody owns such a share now"]
    assert unmatched(apart, [SOUND]) == [
        "a.f, smallest tenant: nobody owns such a share now", "a.f, tenant with 1 %: nobody owns such a share now",
        "a.f, largest tenant: the baseline has no such case",
    ]  # fmt: skip
    assert unmatched(apart, [one], ["a.f, tenant with 1 %"]) == [], "there was no time for it"
    assert unmatched(apart, []) == [], "what was not measured at all is said elsewhere"
    fewer = msgspec.structs.replace(both, asked=4)
    assert unmatched(then, [fewer]) == ["a.f, smallest tenant: asked for 10 rows then, for 4 now"]


@pytest.mark.parametrize("ratio, pages, kinds", [
    (1.86, 60, ["buffers", "time"]), (1.86, 45, ["time"]), (1.65, 60, ["buffers"]), (1.65, 45, []),
])  # fmt: skip
def test_a_short_search_that_takes_half_as_long_again_is_told(ratio: float, pages: float, kinds: list[str]) -> None:
    """Doubled searches of 1.23 calibrations took 51 % longer or more, since a round trip is not doubled."""
    short = changed(ratio=1.23, buffers=40)
    found = changed(ratio=ratio, buffers=pages, plan="hnsw index i x 2")
    problems = list(compared(found, short, True))
    assert [p.kind for p in problems] == kinds
    assert all(p.cause == "a search scans: hnsw index i x 2; in the baseline: hnsw index i" for p in problems)


def test_other_work_on_the_machine_is_no_part_of_a_ratio() -> None:
    """Of each query and its calibrations the shortest of all rounds."""
    quiet = numpy.array([[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]] * 4)
    busy = quiet.copy()
    busy[0, :, 1] *= 9
    busy[1, :2, 0] *= 5
    busy[2:, 1] *= 7
    assert paced(quiet) == paced(busy) == 3.0


def test_other_queries_touch_other_pages() -> None:
    assert list(compared(changed(buffers=900, asking="a"), SOUND, True)) == []


def test_pages_are_not_compared_between_classes() -> None:
    assert list(compared(changed(buffers=900), SOUND, False)) == []
    assert [p.kind for p in compared(changed(ratio=9.0), SOUND, False)] == ["time"]


@pytest.mark.parametrize("reruns, slower", [([9, 9, 9, 9], True), ([4], False), ([9, 9, 9, 4], False)])
def test_a_slower_search_is_confirmed_by_four_reruns(reruns: list[float], slower: bool) -> None:
    left = iter(reruns)
    found = list(compared(changed(ratio=9.0), SOUND, True, lambda: next(left)))
    assert [p.kind for p in found] == (["time"] if slower else [])


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    where = Circumstances("16.14", "0.8.5", "2 x processor", {"work_mem": "4096kB"})
    kept = Baseline("shop", where, {SOUND.case: SOUND})
    baseline.save(tmp_path / "new" / "shop.json", kept)
    assert baseline.load(tmp_path / "new" / "shop.json") == kept
    other = msgspec.structs.replace(where, machine="8 x processor", settings={"work_mem": "1GB"})
    assert where.differences(other) == ["machine", "work_mem"]
    assert where.differences(where) == []


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', "\0"])
def test_a_file_that_is_no_baseline_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(Mistake, match="--update-baseline"):
        baseline.load(tmp_path / "x.json")
    with pytest.raises(Mistake, match="no baseline there"):
        baseline.load(tmp_path / "y.json")


@pytest.mark.parametrize("text", ["", "[1, 2]", "[1, 2, NaN]", '[1, 2, "x"]', "no", "[1,2,3]\n[1,2]"])
def test_queries_that_do_not_fit_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "q").write_text(text)
    with pytest.raises(Mistake, match="line"):
        cases.read(tmp_path / "q", Vector(3))


def test_queries_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("[1, 2, 3.5]\n\n[4, 5, 6]\n")
    assert (cases.read(tmp_path / "q", Vector(3)) == numpy.array([[1, 2, 3.5], [4, 5, 6]])).all()


@pytest.mark.parametrize("queries, clients", [("9", 1), ("10001", 1), ("40", 0), ("40", 33)])
def test_how_much_to_measure_is_bounded(queries: str, clients: int) -> None:
    with pytest.raises(Mistake, match="wanted"):
        Wanted.of(queries, clients, True)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_the_time_for_everything_is_some(seconds: float) -> None:
    with pytest.raises(Mistake, match="--seconds"):
        Wanted.of("40", 1, True, seconds)


def test_queries_have_a_fingerprint() -> None:
    queries = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    assert fingerprint(queries) == fingerprint(queries.copy()) != fingerprint(queries + 1)
    assert len(fingerprint(queries)) == 16


def test_how_much_to_measure() -> None:
    assert Wanted.of("40", 6, True).clients == (1, 2, 4, 6)
    assert Wanted.of("some/file", 1, False) == Wanted(clients=(1,), curves=False, file=Path("some/file"))


def test_settings_go_from_the_cheapest_to_all() -> None:
    assert [s["ivfflat.probes"] for s in settings("ivfflat", 10, False)] == ["1", "2", "4", "8", "10"]
    assert [s["hnsw.ef_search"] for s in settings("hnsw", 0, False)][-2:] == ["640", "1000"]
    assert {s["hnsw.iterative_scan"] for s in settings("hnsw", 0, True)} == {"off", "strict_order", "relaxed_order"}


def test_each_method_that_has_an_index_is_tried() -> None:
    indexes = [SimpleNamespace(method="hnsw", options={}), SimpleNamespace(method="ivfflat", options={"lists": "3"})]
    catalog = SimpleNamespace(extension=lambda _: SimpleNamespace(version="0.7.4"))
    measuring: Any = SimpleNamespace(
        indexes=lambda: indexes, evidence=SimpleNamespace(catalog=catalog),
        cases=[SimpleNamespace(name="a", rows=1)], tried=lambda *_: Tried(1.0, 0, 1.0, 1.0, 1.0),
    )  # fmt: skip
    tried = [point.settings for point in curve(measuring)]
    assert tried[-3:] == [{"ivfflat.probes": n} for n in ("1", "2", "3")]
    assert [list(one) for one in tried[:-3]] == [["hnsw.ef_search"]] * 8


def test_the_cheapest_setting_is_the_first_of_those_that_read_about_as_few_pages() -> None:
    points = [Point({"p": str(n)}, {"a": Tried(r, 0, 9 - n, 9 - n, 1.0, pages), "b": Tried(1.0, 0, 0.1, 0.1, 0.0, 5)})
              for n, (r, pages) in enumerate([(0.5, 10), (0.91, 210), (0.99, 200), (1.0, 900)])]  # fmt: skip
    assert list(good(points, 0.9)) == points[1:]
    assert list(good(points, 0.95)) == points[2:]
    assert list(good(points[:1], 0.9)) == []
    jumbled = Point({"p": "5"}, {"a": Tried(1.0, 0, 1, 1, 1.0, 5, unordered=1)})
    assert list(good([jumbled], 0.9)) == []


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(range(1, 101), 0.95) == 95
    assert quantile([5], 0.99) == 5
    assert math.isfinite(quantile([1, 2], 0.0))
