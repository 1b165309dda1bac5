"""The search benchmark: silent without a change, and every deliberate regression is caught and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from benchmarks.shop import EARLY, GOOD, INDEX, SEARCH, benched, contract, fill
from pgconform.contract import Limits
from pgconform.database import begin
from pgconform.targets.server import Server
from pgconform.vectors.baseline import Baseline
from pgconform.vectors.bench import Wanted
from reports.bench import as_json, as_text

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def shop(references: Server) -> Iterator[Connection]:
    with psycopg.connect(references.dsn(), autocommit=True) as connection:
        connection.execute("drop database if exists searched with (force)")  # a worker may come back to this file
        connection.execute("create database searched")
    with psycopg.connect(references.dsn("searched"), autocommit=True, prepare_threshold=None) as connection:
        fill(connection)
        yield connection


@pytest.fixture
def changed(shop: Connection) -> Iterator[Connection]:
    begin(shop, Limits(), read_only=False)
    yield shop
    shop.execute("rollback")


@pytest.fixture(scope="module")
def baseline(shop: Connection) -> Baseline:
    begin(shop, Limits(), read_only=False)
    outcome = benched(shop)
    shop.execute("rollback")
    assert outcome.problems == []
    assert outcome.unverified == {}
    assert [found.rows > 0 for found in outcome.now.cases.values()] == [True, True, True, False]
    assert outcome.now.cases["shop.search, largest tenant"].scanned_later == 1
    return outcome.now


def test_nothing_is_found_without_a_change(changed: Connection, baseline: Baseline) -> None:
    outcome = benched(changed, baseline)
    assert [(p.case, p.kind, p.observed) for p in outcome.problems] == []
    assert outcome.differences == []


def search(old: str = "", new: str = "", settings: str = GOOD) -> str:
    assert old in SEARCH
    return SEARCH.format(settings=settings).replace(old, new)


EMPTY = EARLY + search(settings="set ivfflat.probes = '12'")
INVALID = "update pg_catalog.pg_index set indisvalid = false where indexrelid = 'shop.texts_idx'::pg_catalog.regclass;"
OPERATORS = f"drop index shop.texts_idx; {INDEX.replace('cosine', 'l2')}"
HNSW = f"""
drop index shop.texts_idx;
create index texts_idx on shop.texts using hnsw (embedding public.vector_cosine_ops) with (m = 8, ef_construction = 32);
{search(settings="set hnsw.ef_search = '10' set enable_seqscan = off set enable_sort = off")}
"""
# Without knowing n, the server takes the primary key's index for the cheaper way.
GENERIC = search("t.shop_id = shop)", "t.shop_id = shop) and t.id >= n - 10", "set ivfflat.probes = '20'").replace(
    "'force_custom_plan'", "'auto'"
)
# Everything is done twice, and the first answer thrown away.
TWICE = search(
    "begin\n  return query", "begin\n  perform 1 from (select t.id from shop.texts as t where (shop is null or"
    " t.shop_id = shop) and t.embedding operator(public.<=>) q < 1 - threshold"
    " order by t.embedding operator(public.<=>) q limit n) as near;\n  return query",
)  # fmt: skip
# What is done, the kind of a problem that it must be found as, and words of its cause.
REGRESSIONS = {
    "index dropped": ("drop index shop.texts_idx", "index", "there is no approximate index"),
    "index invalid": (INVALID, "index", "shop.texts_idx: it is not valid"),
    "index built on an empty table": (EMPTY, "recall", "built before its rows were there"),
    "wrong operator class": (OPERATORS, "index", "its operator class is public.vector_l2_ops"),
    "probes too small": (search(settings="set ivfflat.probes = '1'"), "recall", "ivfflat.probes is too small"),
    "planner pushed off the index": ("set local random_page_cost = 10000", "index", "the planner takes another way"),
    "function scans": (
        search("order by t.embedding operator(public.<=>) q", "order by public.cosine_distance(t.embedding, q)"),
        "index", "orders by another expression",
    ),
    "ef too small": (HNSW, "rows", "hnsw.ef_search"),
    "tenant filter lost": (
        search("(shop is null or t.shop_id = shop) and", "").replace("stable", "stable security definer"),
        "foreign rows", "filter by tenant is lost",
    ),
    "policy opened": (
        "alter policy own on shop.texts using (true);" + search("(shop is null or t.shop_id = shop) and", ""),
        "foreign rows", "row security shows the caller rows of others",
    ),
    "threshold lost": (
        search("and t.embedding operator(public.<=>) q < 1 - threshold", ""), "threshold",
        "does not compare and filter",
    ),
    "the nearest row again and again": (
        search("order by near.distance", "cross join pg_catalog.generate_series(1, n) order by near.distance limit n"),
        "count", "joins what gives a row several times",
    ),
    "limit lost": (search("q limit n)", "q limit n + 2)"), "count", "does not keep to its limit"),
    "policy starves the small tenant": (
        "create policy less on shop.texts as restrictive for select to caller using (shop_id <> 'tiny')",
        "rows", "row security hides",
    ),
    "policy hides rows": (
        "create policy less on shop.texts as restrictive for select to caller"
        " using (shop_id <> 'tiny' or id % 2 = 0)", "rows", "row security hides",
    ),
    "pages touched twice": (TWICE, "buffers", "texts_idx x 2"),
    "more lists read": (search(settings=GOOD.replace("12", "30")), "buffers", ""),
    "lists too small": (
        f"drop index shop.texts_idx; {INDEX.replace('lists = 40', 'lists = 1000')} analyze shop.texts;"
        + search(settings="set ivfflat.probes = '12'"), "recall", "ivfflat.probes is too small",
    ),
    "too few lists": (
        f"drop index shop.texts_idx; {INDEX.replace('lists = 40', 'lists = 1')} analyze shop.texts",
        "buffers", "lists = 1 for about 6000 rows",
    ),
    "dimension truncated": (
        search("t.embedding operator(public.<=>) q", "public.subvector(t.embedding, 1, 12) operator(public.<=>)"
               " public.subvector(q, 1, 12)"), "similarity", "over all 48 dimensions",
    ),
}  # fmt: skip


# Whoever set the costs knows where; a graph is another each time it is built, and may have no setting that is enough;
# rows may be hidden on purpose.
NOT_BY_SQL = {"planner pushed off the index", "ef too small", "policy hides rows"}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_is_caught_and_named(changed: Connection, baseline: Baseline, name: str) -> None:
    change, kind, cause = REGRESSIONS[name]
    changed.execute(change.encode())
    outcome = benched(changed, baseline)
    assert outcome.unverified == {}
    told = [(p.kind, p.cause) for p in outcome.problems]
    assert any(k == kind and cause in why for k, why in told), (told, list(outcome.now.cases.values()))
    for remedy in dict.fromkeys(p.remedy for p in outcome.problems if p.kind == kind and cause in p.cause):
        changed.execute(remedy.encode())
    left = [(p.kind, p.cause, p.observed) for p in benched(changed).problems]
    assert [found for found in left if found[0] == kind and cause in found[1]] == [] or name in NOT_BY_SQL


def test_a_search_done_twice_is_slower_and_one_that_is_unchanged_is_not(changed: Connection) -> None:
    """Although a search is as brief as a calibration, and the machine may have other work to do."""
    wanted = Wanted(30, (), False, pace=2.0)
    before = benched(changed, wanted=wanted).now
    assert [p.kind for p in benched(changed, before, wanted).problems] == []
    changed.execute(TWICE.encode())
    outcome = benched(changed, before, wanted)
    ratios = [f"{case.ratio:.2f} after {before.cases[name].ratio:.2f}" for name, case in outcome.now.cases.items()]
    slower = [p for p in outcome.problems if p.kind == "time"]
    assert slower, ratios
    assert {p.kind for p in outcome.problems} == {"time", "buffers"}
    scans = {p.case: p.cause for p in slower}
    twice = "a search scans: ivfflat index texts_idx x 2; in the baseline: ivfflat index texts_idx"
    assert scans.get("shop.search, largest tenant", twice) == twice
    print(ratios)


def test_what_there_is_no_time_for_is_not_measured_and_never_passed(changed: Connection) -> None:
    none = benched(changed, wanted=Wanted(10, (), False, seconds=1e-9))
    assert (none.status, none.now.cases) == (3, {})
    assert none.left == ["shop.search: the exact answer, and all that is judged by it"]
    some = benched(changed, wanted=Wanted(10, (1,), True, pace=0.1, seconds=0.5))
    assert some.status == 3
    assert some.refusal == "it was not measured to the end"
    assert "shop.search: settings of its index" in some.left
    assert not {*some.left} & {*some.now.cases}
    assert "not measured, the time was over: shop.search: settings of its index" in as_text(some)


RENAMED = {
    "shop.texts.embedding": 'shop."We""ird %s Table"."Em{b}"',
    "shop.texts": 'shop."We""ird %s Table"',
    "embedding": "Em{b}",
    "shop.search": 'shop."Se""arch %(x)s"',
}


def test_unusual_names_are_measured_and_mended(changed: Connection) -> None:
    changed.execute("drop function shop.search; drop index shop.texts_idx")
    changed.execute('alter table shop.texts rename column embedding to "Em{b}"')
    changed.execute(b'alter table shop.texts rename to "We""ird %s Table"')
    promised = contract(RENAMED)
    text = search().replace("shop.texts", RENAMED["shop.texts"])
    changed.execute(text.replace("shop.search", RENAMED["shop.search"]).replace("t.embedding", 't."Em{b}"').encode())
    lost = benched(changed, promised=promised)
    (problem,) = [p for p in lost.problems if p.kind == "index"]
    assert "index" in lost.refusal, "no baseline is made of it"
    assert problem.cause == "there is no approximate index"
    changed.execute(problem.remedy.encode())
    mended = benched(changed, promised=promised)
    causes = {p.cause for p in mended.problems}
    assert causes <= {"", "the planner takes another way to be cheaper"}  # of six lists, the function probes all
    assert mended.unverified == {}
    assert "We" not in "".join(mended.now.cases)


def test_a_lost_search_is_a_problem(changed: Connection, baseline: Baseline) -> None:
    changed.execute("drop function shop.search")
    for before in (None, baseline):
        outcome = benched(changed, before)
        (problem,) = outcome.problems
        assert (problem.case, problem.kind, outcome.status) == ("shop.search", "absent", 1)
        assert "the function does not exist" in as_text(outcome)
    changed.execute(problem.remedy.encode())
    again = benched(changed, baseline)
    assert again.problems == []
    assert again.uncompared == []


def test_a_lost_search_is_a_problem_beside_one_that_is_there(changed: Connection, baseline: Baseline) -> None:
    promised = contract()
    (promise,) = promised.functions.values()
    both = {"shop.search": promise, "shop.other": promise}
    outcome = benched(changed, baseline, promised=msgspec.structs.replace(promised, functions=both))
    assert [(p.case, p.kind) for p in outcome.problems] == [("shop.other", "absent")]
    assert outcome.now.cases
    renamed = {f"shop.other, {name.rpartition(', ')[2]}": found for name, found in baseline.cases.items()}
    renamed = {name: msgspec.structs.replace(found, case=name) for name, found in renamed.items()}
    undeclared = benched(changed, msgspec.structs.replace(baseline, cases=baseline.cases | renamed))
    assert [(p.case, p.kind) for p in undeclared.problems] == [("shop.other", "absent")]
    changed.execute("alter table shop.texts rename column embedding to gone")
    assert "no vectors" in benched(changed).problems[0].observed


def test_a_stale_generic_plan_is_caught_and_named(shop: Connection, references: Server) -> None:
    shop.execute(GENERIC.encode())  # committed: a session keeps plans beyond transactions, so others must measure
    try:
        begin(shop, Limits())
        outcome = benched(shop, dsn=references.dsn("searched"))
    finally:
        shop.execute("rollback")
        shop.execute(search().encode())
    (told,) = [p for p in outcome.problems if p.kind == "generic plan"]
    assert "keeps a generic plan" in told.cause
    assert told.remedy.endswith("set plan_cache_mode = 'force_custom_plan';")


def test_the_cheapest_good_setting_is_named_and_keeps_its_promise(shop: Connection, references: Server) -> None:
    begin(shop, Limits(), read_only=False)
    outcome = benched(shop, wanted=Wanted(20, (1, 2), True), dsn=references.dsn("searched"))
    points = outcome.curves["shop.search"]
    assert [p.settings["ivfflat.probes"] for p in points[:7]] == ["1", "2", "4", "8", "16", "32", "40"]
    assert points[0].least < points[6].least == 1.0
    loads = {name: list(case.clients) for name, case in outcome.now.cases.items()}
    assert loads == {
        "shop.search, smallest tenant": ["1", "2"], "shop.search, tenant with 3-8 %": [],
        "shop.search, largest tenant": ["1", "2"], "shop.search, no tenant": [],
    }  # fmt: skip
    for load in outcome.now.cases["shop.search, largest tenant"].clients.values():
        assert load.rate > 1
        assert 0 < load.p50 <= load.p95
    figures = [figure.name for figure in outcome.figures()]
    assert "search of shop.search, largest tenant: p95 by 2 at once" in figures
    assert "2 client(s) at once: " in as_text(outcome)
    shop.execute(outcome.advice["shop.search"].encode())
    again = benched(shop, wanted=Wanted(20, (), False))
    shop.execute("rollback")
    assert [p.kind for p in again.problems if p.kind in ("recall", "rows")] == []
    assert "the cheapest with all rows and the promised recall" in as_text(outcome)
    assert json.loads(as_json([outcome]))[0]["contract"] == "shop"


def test_settings_of_a_graph_are_tried_too(changed: Connection) -> None:
    """The function has effort enough: to look for causes would try all settings once more."""
    changed.execute(HNSW.replace("'10'", "'1000'").encode())
    outcome = benched(changed, wanted=Wanted(10, (), True, pace=0.1))
    points = outcome.curves["shop.search"]
    efforts = [10, 20, 40, 80, 160, 320, 640, 1000]
    assert [int(point.settings["hnsw.ef_search"]) for point in points] == 3 * efforts
    assert points[0].least < points[7].least
    advice = outcome.advice["shop.search"]
    assert "hnsw.ef_search = " in advice
    changed.execute(advice.encode())
    again = benched(changed, wanted=Wanted(10, (), False, pace=0.1))
    assert [p.kind for p in again.problems if p.kind in ("recall", "rows")] == []


def test_threefold_growth_of_the_largest_tenant_is_no_regression(changed: Connection, baseline: Baseline) -> None:
    # The last of this file: what is undone leaves the table's pages, and with them the planner's mind, changed.
    changed.execute(
        "insert into shop.texts select t.id + n * 10000, t.shop_id, t.embedding from shop.texts as t,"
        " generate_series(1, 2) as n where t.shop_id = 'huge'"
    )
    changed.execute("reindex index shop.texts_idx")
    changed.execute("analyze shop.texts")
    outcome = benched(changed, baseline)
    assert [(p.case, p.kind, p.observed) for p in outcome.problems if p.kind in ("buffers", "time")] == []
    assert {found.total for found in outcome.now.cases.values()} != {found.total for found in baseline.cases.values()}
    assert set(outcome.now.cases) | set(outcome.uncompared) >= {
        "shop.search, smallest tenant",
        "shop.search, no tenant",
    }
