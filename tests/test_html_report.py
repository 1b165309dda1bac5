"""The HTML report in a real browser: Debian's Chromium, without any network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pgconform.reports import html, write
from pgconform.reports.beside import ACCESS, BENCH, SCALE, keep
from pgconform.reports.locks import lock

from pgconform.results import Run
from tests.runs import HOSTILE, large, small

LOADS, FILTERS, LARGEST = 300, 100, 1_000_000  # milliseconds, milliseconds, bytes, at 3,000 checks
SLACK = 3  # what a machine with other work on it may add


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; that it is missing fails, since the report would go unseen."""
    from playwright.sync_api import sync_playwright

    binary = shutil.which("chromium")
    assert binary, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Opened:
    """A page, what its console said, and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, anchor: str = "", **options: Any) -> None:
        context = browser.new_context(**options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + anchor)


def written(run: Run, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(html.render(run), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(browser, written(small(), tmp_path))
    yield opened
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("file:")] == []
    opened.page.context.close()


def test_what_a_reader_acts_on_comes_first(page: Opened) -> None:
    titles = page.page.locator("h1, h2").all_inner_texts()
    assert [re.sub(r" \(\d+\)", "", title) for title in titles] == [
        "does not conform: 1 finding(s) in 1 check(s)", "Changes since the last run", "Failures", "Not verified",
        "Advice", "Waived", "Skipped", "Passed",
    ]  # fmt: skip
    said = page.page.locator("ul.few").first.inner_text()
    assert "new: row-security-enabled" in said
    assert "gone: row-security-enabled: public.gone" in said
    assert "cannot be verified any more: orphans" in said


def test_hostile_names_are_text(page: Opened) -> None:
    assert page.page.locator("script").count() == 1, "the report's own"
    said = page.page.locator("article").first.inner_text()
    assert "<script>alert(1)</script> & \"quotes\" 'single' \ufffd\ufffd" in said
    assert "\ufffdright?" in said, "nothing turns the direction of the text"
    assert "takes ACCESS EXCLUSIVE (reads and writes wait)" in said
    assert "and 25 more, in findings.json" in page.page.locator("article", has_text="index-redundant").inner_text()


def test_filter_by_words_and_verdict(page: Opened) -> None:
    shown = page.page.locator("[data-v]:visible")
    page.page.keyboard.press("/")
    page.page.keyboard.type("grants-excess p")
    assert page.page.locator("#count").inner_text() == "1 of 6 shown"
    assert shown.count() == 1
    page.page.keyboard.press("Escape")
    page.page.select_option("#verdict", "broken")
    assert shown.count() == 1
    assert "grant SELECT" in shown.first.inner_text()


def test_a_permalink_opens_what_is_folded(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(small(), tmp_path), "#" + quote("muva/grants-excess/public.p"))
    assert opened.page.locator("li", has_text="public.p").first.is_visible()
    link = opened.page.locator("article h3 a").first
    link.click()
    assert opened.page.locator("article:target").count() == 1
    assert opened.errors == []
    opened.page.context.close()


def test_a_remedy_is_copied(page: Opened) -> None:
    button = page.page.locator("button.copy").nth(1)
    button.focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("document.querySelectorAll('button.copy')[1].textContent === 'copied'")
    assert page.page.evaluate("navigator.clipboard.readText()") == 'alter table public."t" enable row level security;'


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_both_colour_schemes_at_any_width(browser: Any, tmp_path: Path, scheme: str, width: int) -> None:
    opened = Opened(browser, written(small(), tmp_path), color_scheme=scheme, viewport={"width": width, "height": 900})
    picture = tmp_path / f"{scheme}-{width}.png"
    opened.page.screenshot(path=picture, full_page=True)
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert picture.stat().st_size > 10_000
    opened.page.context.close()


def test_three_thousand_checks_load_and_filter_fast(browser: Any, tmp_path: Path) -> None:
    path = written(large(), tmp_path)
    assert path.stat().st_size <= LARGEST
    opened = Opened(browser, path)
    loads = opened.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    filters = opened.page.evaluate(
        "() => { const t = document.getElementById('text'); const s = performance.now(); t.value = 'table_29';"
        " t.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - s; }"
    )
    print(f"{path.stat().st_size / 1e6:.2f} MB, loads in {loads:.0f} ms, filters in {filters:.0f} ms")
    assert loads <= SLACK * LOADS
    assert filters <= SLACK * FILTERS
    opened.page.context.close()


def beside(folder: Path) -> None:
    """What access and bench leave among the reports, twice, with names that try to break out."""
    cells = [
        {"relation": HOSTILE, "role": "anon", "command": command, "declared": "own", "observed": observed,
         "verdict": verdict, "why": HOSTILE}
        for command, observed, verdict in (("select", "own", "agrees"), ("insert", "all", "differs"),
                                           ("update", "untried", "unverified"))
    ]  # fmt: skip
    keep(folder, ACCESS, {"contracts": [{"contract": "muva", "permissions": cells}]})
    case = {"case": HOSTILE, "rows": 5, "returned": 1.0, "expected": 2.0, "recall": 0.5, "worst": 0.0, "foreign": 0,
            "unordered": 0, "cold": 9.0, "p50": 1.0, "p95": 2.0, "plan": f"hnsw index {HOSTILE}",
            "clients": {"1": {"rate": 700.0, "p50": 1.0, "p95": 2.0}}}  # fmt: skip
    for factor in (1.0, 2.0):
        points = [
            {"settings": {"hnsw.ef_search": str(n)},
             "tried": {share: {"recall": n / (3 + part), "milliseconds": factor * (part + 0.2) * n, "ratio": n}
                       for part, share in enumerate((HOSTILE, "tenant with 1 %", "largest tenant"))}}
            for n in (1, 2, 3)
        ]  # fmt: skip
        problems = [{"case": HOSTILE, "kind": "recall"}]
        outcome = {"contract": "muva", "cases": [case], "problems": problems, "curves": {HOSTILE: points, "none": []}}
        keep(folder, BENCH, [outcome, {**outcome, "contract": "another"}])
    points = [{"rows": rows, "method": method, "scan": scan, "ms": ms, "recall": 0.97}
              for method, ms, scan in (("ivfflat", 2.0, "index"), (HOSTILE, 0.9, "index"),
                                       ("exact", 40.0, "sequential"))
              for rows in (1000, 10_000, 100_000)]  # fmt: skip
    points.append({"rows": 20_000, "method": "ivfflat", "scan": "sequential", "ms": 30.0, "recall": 1.0})
    (folder / SCALE).write_text(json.dumps(points), encoding="utf-8")


def test_access_and_searches_stand_in_the_page(browser: Any, tmp_path: Path) -> None:
    beside(tmp_path)
    write(small(), tmp_path)
    opened = Opened(browser, tmp_path / "report.html")
    page = opened.page
    assert page.locator("summary", has_text="Access of muva").inner_text().count("2 of 3 not as declared") == 1
    assert page.locator("td.f").first.inner_text() == "all"
    assert page.locator("td.b").first.inner_text() == "untried"
    assert page.locator("figure").count() == 2, "settings of this run's contract, and the scale"
    settings = page.locator("figure").first.locator("svg[role=img]")
    assert [settings.locator(f".new.s{n}").count() for n in range(4)] == [1, 1, 1, 0], "a series for each caller"
    assert settings.locator(".old").count() == 3
    assert settings.locator(".new circle").count() == settings.locator(".old circle").count() == 3
    assert page.locator("figure").first.locator(".key").nth(2).inner_text().strip() == "largest tenant"
    colours = {settings.locator(f"{series} path").first.evaluate("e => getComputedStyle(e).stroke")
               for series in (".new.s0", ".new.s1", ".new.s2", ".old")}  # fmt: skip
    assert len(colours) == 4, "each series has a colour, and the measurement before is grey"
    heights = settings.locator(".new circle").evaluate_all("all => all.map(e => +e.getAttribute('cy'))")
    assert heights == sorted(heights, reverse=True), "more recall stands higher"
    scale = page.locator("figure").nth(1).locator("svg[role=img]")
    assert scale.locator(".mark").count() == 10
    assert scale.locator(".hollow").count() == 4, "where the table was scanned"
    assert scale.locator("text").all_text_contents() == ["0.9 ms", "40 ms", "1,000 rows", "100,000 rows"]
    (row,) = page.locator("table.grid tr", has_text="700 by 1").all()
    assert "hnsw index" in row.inner_text()
    assert page.locator("summary", has_text="Findings by relation and check").count() == 1
    assert page.locator("script").count() == 1
    assert opened.errors == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_can_be_read_in_both_colour_schemes(browser: Any, tmp_path: Path, scheme: str) -> None:
    beside(tmp_path)
    write(small(), tmp_path)
    opened = Opened(browser, tmp_path / "report.html", color_scheme=scheme)
    opened.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    for number, figure in enumerate(opened.page.locator("figure").all()):
        figure.scroll_into_view_if_needed()
        figure.screenshot(path=tmp_path / f"{scheme}-{number}.png")
        inks = figure.locator("svg[role=img] .new > :last-child").evaluate_all(
            "all => all.map(e => getComputedStyle(e).stroke)"
        )
        assert paper not in inks
        assert len(inks) == len(set(inks)) == 3
    opened.page.context.close()


@pytest.mark.parametrize("text", ["[]", "{}", "5", '[{"rows": 1}]', '[{"rows": "x", "method": 1, "scan": 1, "ms": 1}]'])
def test_a_damaged_scale_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / SCALE).write_text(text, encoding="utf-8")
    run = small()
    write(run, tmp_path)
    assert run.troubles == []
    assert "as the table grows" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_trend_of_searches_stands_among_what_was_measured() -> None:
    run = small()
    run.past["muva"].figures["search of f: p95"] = [(1.0, 10.0), (2.0, 11.0), (3.0, 12.5)]
    (row,) = [line for line in html.render(run).split("<tr>") if "search of f: p95" in line]
    assert '<td class="n">12.5 <td class="n">11<td>' in row
    assert "3 runs, from 10 to 12.5" in row


@pytest.mark.parametrize("text", ["", "[]", '{"when": 1, "told": 5}', '{"when": "x", "told": {"contracts": [{}]}}'])
def test_damaged_documents_beside_are_left_out(tmp_path: Path, text: str) -> None:
    for file in (ACCESS, BENCH):
        (tmp_path / file).write_text(text, encoding="utf-8")
    run = small()
    write(run, tmp_path)
    assert run.troubles == []
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_that_was_cut_short_says_so() -> None:
    run = small()
    run.interrupted, run.lost = True, "the target stopped answering"
    run.troubles.append("internal error: x")
    page = html.render(run)
    for said in ("the run was cut short", "the target stopped answering", "internal error: x"):
        assert said in page


@pytest.mark.parametrize(
    ("remedy", "taken"),
    [
        ("create index concurrently on a (b);", "SHARE UPDATE EXCLUSIVE"),
        ("create index on a (b);", "SHARE"),
        ("alter table a validate constraint c; update a set b = 1;", "SHARE UPDATE EXCLUSIVE"),
        ("alter table a add foreign key (b) references c (d);", "SHARE ROW EXCLUSIVE"),
        ("grant select on a to b; drop policy p on a;", "ACCESS EXCLUSIVE"),
        ("vacuum (full) a;", "ACCESS EXCLUSIVE"),
        ("reindex index concurrently a;", "SHARE UPDATE EXCLUSIVE"),
        ("grant select on a to b;", ""),
        ("-- ask the owner", ""),
        ("not SQL at all", ""),
    ],
)
def test_the_lock_of_a_remedy(remedy: str, taken: str) -> None:
    assert lock(remedy).partition(" (")[0] == taken
