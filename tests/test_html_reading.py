"""How report.html is read: what is open, what keyboard and pointer reach, and what paper shows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from pgconform.reports import write

from pgconform.contract import Waiver
from pgconform.model import Result, Verdict
from pgconform.results import Run
from tests.pages import Opened, beside, opacity, written
from tests.runs import HOSTILE, small


def many() -> Run:
    """A check with several subjects that passed, each with a past; one with one; one whose skip is accepted."""
    run = small()
    passed = [Result("grants-of-tables", "muva", Verdict.PASSED, "Grants of tables", f"public.t {n}", examined=1)
              for n in range(40)]  # fmt: skip
    accepted = Result(
        "z-skip", "muva", Verdict.SKIPPED, "Nothing there", reason="none (accepted: so it is)", accepted=True
    )
    run.results += [*passed, accepted]
    past = run.past["muva"]
    for number, result in enumerate(passed):
        past.verdicts[result.check, result.subject] = ("passed",) * 20 + ("", "failed") * (number % 2)
        past.keys[result.check, result.subject] = frozenset()
    return run


def test_what_nobody_accepted_is_as_open_as_a_failure(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(many(), tmp_path))
    case = opened.page.locator("#s-unexamined + article")
    assert case.is_visible()
    assert "nothing was examined" in case.inner_text()
    assert 'chunks-complete = "nothing to examine"' in case.inner_text(), "and how to say that it is right"
    assert opened.page.locator("#s-broken + article").is_visible()
    assert "1 not verified, 1 not examined" in opened.page.locator(".verdict").inner_text()
    assert opened.page.locator("#s-skipped + details").evaluate("e => e.open") is False
    opened.page.select_option("#verdict", "unexamined")
    assert opened.page.locator("[data-v]:visible").count() == 1
    opened.page.context.close()


def test_the_last_runs_are_drawn_and_said(browser: Any, tmp_path: Path) -> None:
    """Also where the verdict never changed: that a check has been failing for weeks is news to somebody."""
    run = many()
    red = ("row-security-enabled", "public.t")
    run.past["muva"].verdicts[red] = ("failed",) * 40
    opened = Opened(browser, written(run, tmp_path))
    page = opened.page
    strip = page.locator("article.failed svg.strip")
    strip.wait_for()
    assert strip.locator("rect.f").count() == 30
    assert strip.get_attribute("aria-label") == "last 30 runs: 30 failed; this one: failed"
    assert strip.locator("title").text_content() == strip.get_attribute("aria-label"), "the tooltip"
    page.evaluate("id => { location.hash = id; }", quote("muva/grants-of-tables/public.t_1"))
    case = page.locator("li:target svg.strip")
    case.wait_for()
    assert [rect.get_attribute("class") for rect in case.locator("rect").all()] == [*"p" * 20, "-", "f", "p"]
    told = "last 23 runs: 21 passed, 1 not asked, 1 failed; this one: passed"
    assert page.get_by_role("img", name=told).count() >= 1
    assert opened.errors == []
    page.context.close()


def test_every_case_has_a_link_that_focus_and_pointer_show(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(many(), tmp_path))
    page = opened.page
    single = page.locator("#s-skipped + details > summary")
    single.hover()
    assert opacity(single.locator("a.link")) == "1"
    group = page.locator("details.group > summary")
    group.click()
    case = page.locator("details.group li").nth(2)
    assert opacity(case.locator("a.link")) == "0"
    case.hover()
    assert opacity(case.locator("a.link")) == "1"
    case.locator("a.link").click()
    assert page.evaluate("location.hash") == "#" + quote("muva/grants-of-tables/public.t_2")
    page.context.close()


def test_the_page_is_used_by_keyboard(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(many(), tmp_path))
    page = opened.page

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"no Tab leads to {selector}")

    page.keyboard.press("/")
    tab_to("nav a[href='#s-failed']")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#s-failed"
    tab_to("article.failed h3 a")
    page.keyboard.press("Enter")
    assert page.locator("article.failed:target").count() == 1
    tab_to("article.failed details summary")
    page.keyboard.press("Enter")
    tab_to("article.failed details .copy")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == "begin; select 1; rollback;"
    tab_to("details.group > summary")
    page.keyboard.press("Enter")
    tab_to("details.group li a.link")
    assert opacity(page.locator("a.link:focus")) == "1"
    page.keyboard.press("Enter")
    assert page.locator("li:target").count() == 1
    assert opened.errors == []
    page.context.close()


def test_paper_shows_what_is_folded_and_the_page_folds_it_again(browser: Any, tmp_path: Path) -> None:
    beside(tmp_path)
    write(many(), tmp_path)
    opened = Opened(browser, tmp_path / "report.html")
    page = opened.page
    page.locator("details.group > summary").click()
    folded = "[...document.querySelectorAll('details')].map(e => e.open)"
    before = page.evaluate(folded)
    assert len(set(before)) == 2
    page.evaluate(
        f"addEventListener('beforeprint', () => {{ window.printed = {folded};"
        " window.drawn = document.querySelectorAll('[data-h] svg.strip').length; })"
    )
    page.pdf(path=tmp_path / "report.pdf")
    assert page.evaluate("window.printed") == [True] * len(before)
    assert page.evaluate("window.drawn") == page.locator("[data-h]").count() > 40
    assert page.evaluate(folded) == before
    page.emulate_media(media="print")
    assert page.locator(".bar").is_hidden()
    assert page.locator("button.copy:visible").count() == 0
    page.context.close()


@pytest.mark.parametrize("anchor", ["#100%", "#nothing", "#", "#%E0%A4%A", "#muva/"])
def test_an_address_that_leads_nowhere_is_no_error(browser: Any, tmp_path: Path, anchor: str) -> None:
    opened = Opened(browser, written(small(), tmp_path), anchor)
    assert opened.page.locator("#count").inner_text() == "6 in all"
    assert opened.errors == []
    opened.page.context.close()


def test_the_address_of_a_check_leads_to_its_first_case(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(many(), tmp_path), "#grants-of-tables")
    assert opened.page.locator("details.group").evaluate("e => e.open")
    opened.page.fill("#text", "orphans")
    opened.page.evaluate("location.hash = 'z-skip'")
    opened.page.wait_for_function("document.querySelector('#text').value === ''")
    assert opened.page.locator("details", has_text="z-skip").is_visible(), "a link wins over a filter"
    opened.page.context.close()


def test_waivers_about_to_end_stand_above_the_failures(browser: Any, tmp_path: Path) -> None:
    run = small()
    today = run.started.date()
    dated = {name: Waiver("a-check", name, f"known {HOSTILE}", "platform", today + datetime.timedelta(days=days))
             for name, days in (("ended", -1), ("today", 0), ("soon", 30), ("later", 31))}  # fmt: skip
    run.contracts = (msgspec.structs.replace(run.contracts[0], waivers=tuple(dated.values())),)
    opened = Opened(browser, written(run, tmp_path))
    table = opened.page.locator("#s-waivers + .wide table")
    assert [row.locator("td").nth(2).inner_text() for row in table.locator("tr").all()[1:]] == ["today", "soon"]
    row = table.locator("tr").nth(1).inner_text()
    assert f"{today}\ta-check\ttoday\tplatform\tknown <script>" in row
    order = opened.page.locator("h2").evaluate_all("all => all.map(e => e.id)")
    assert order.index("s-waivers") < order.index("s-failed")
    opened.page.context.close()
