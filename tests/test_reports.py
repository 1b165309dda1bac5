"""The reports: complete, well-formed, and safe whatever stands in a name."""

from __future__ import annotations

import datetime
import json
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgconform.reports import findings, html, junit, terminal, write

from pgconform.contract import Contract, Waiver
from pgconform.model import Finding, Result, Severity, Verdict
from pgconform.results import Run, from_json, to_json

TODAY = datetime.date(2030, 1, 1)


def result(verdict: Verdict, check: str = "a-check", **more: object) -> Result:
    return Result(check, "muva", verdict, "It holds", guide=("muva-3",), examined=2, looked_for="Tables", **more)  # type: ignore[arg-type]


def run(*results: Result, **more: object) -> Run:
    made = Run((Contract("muva", guide="muva", **more),))  # type: ignore[arg-type]
    made.results += results
    made.finish(TODAY, {"muva": "PostgreSQL 16"})
    return made


BAD = Finding("public.t", "it is off", "alter table public.t enable row level security;")


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([result(Verdict.PASSED)], 0),
        ([result(Verdict.PASSED), result(Verdict.FAILED, "b", findings=(BAD,))], 1),
        ([result(Verdict.PASSED), result(Verdict.FAILED, "b", findings=(BAD,), severity=Severity.SHOULD)], 0),
        ([result(Verdict.PASSED), result(Verdict.BROKEN, "b", reason="no grant")], 3),
        ([result(Verdict.FAILED, findings=(BAD,)), result(Verdict.BROKEN, "b", reason="no grant")], 1),
        ([result(Verdict.PASSED), result(Verdict.SKIPPED, "b", reason="none")], 5),
        ([result(Verdict.PASSED), result(Verdict.SKIPPED, "b", reason="none", accepted=True)], 0),
        ([result(Verdict.SKIPPED, accepted=True)], 5),
        ([], 5),
    ],
)
def test_the_exit_status_follows_from_the_results(results: list[Result], status: int) -> None:
    assert run(*results).status()[0] == status


def _found(count: int, remedy: str, **more: object) -> tuple[Finding, ...]:
    return tuple(Finding(f"public.t{number}", "o", remedy, **more) for number in range(count))  # type: ignore[arg-type]


@pytest.mark.parametrize(("remedy", "told"), [
    ("alter role web nobypassrls;", "alter role web nobypassrls;"),
    ("-- while nobody writes:\ndrop role web;", "that of a, beside its findings"),
    ("drop owned by web;\ndrop role web;", "that of a, beside its findings"),
])  # fmt: skip
def test_a_remedy_of_many_findings_is_told_at_their_end(tmp_path: Path, remedy: str, told: str) -> None:
    """By every report that a person reads, also when it is written again."""
    few = [result(Verdict.FAILED, "c", findings=_found(4, "alter table t enable row level security;"))]
    advice = result(Verdict.FAILED, "e", findings=_found(9, "drop index i;"), severity=Severity.SHOULD)
    made = run(*few, advice, *(result(Verdict.FAILED, name, findings=_found(3, remedy)) for name in "ba"))
    said = f"muva: 6 of 10 findings, in 2 check(s), have the same remedy; begin with it, and run again: {told}"
    assert made.remarks() == [said]
    assert (said, "yellow") in list(terminal.lines(made, full=False))
    (tmp_path / "findings.json").write_text(findings.render(made), encoding="utf-8")
    again = findings.read(tmp_path / "findings.json")
    assert [text for text, _ in terminal.lines(again, full=True)].count(said) == 1


@pytest.mark.parametrize(("name", "found"), [
    ("c", _found(4, "drop index i;")),
    ("c", _found(9, "")),
    ("c", _found(9, "-- no statement puts this right")),
    ("c", _found(9, "drop table t;", destroys=True)),
])  # fmt: skip
def test_no_remedy_is_told_of_few_of_none_and_of_what_destroys_data(name: str, found: tuple[Finding, ...]) -> None:
    assert run(result(Verdict.FAILED, name, findings=found)).remarks() == []


def test_no_remedy_is_told_of_two_databases_together_or_of_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(result(Verdict.FAILED, findings=_found(5, "drop index i;")))
    assert made.remarks()
    (one,) = made.results
    made.results = [replace(one, findings=_found(3, "drop index i;"), contract=name) for name in ("a", "b")]
    assert made.remarks() == []
    made.results = [one]
    monkeypatch.setattr(Run, "notes", lambda _: ["is it the right database?"])
    assert made.remarks() == []


def test_a_lost_target_and_our_own_trouble_are_no_pass() -> None:
    lost, troubled = run(result(Verdict.PASSED)), run(result(Verdict.PASSED))
    lost.lost = "the server went away"
    troubled.troubles.append("internal error")
    assert (lost.status()[0], troubled.status()[0]) == (75, 3)
    for made in (lost, troubled):
        assert json.loads(findings.render(made))["complete"] is False
        assert ET.fromstring(junit.render(made)).find(".//error") is not None


@pytest.mark.parametrize(("until", "object_", "stale"), [
    (datetime.date(2030, 1, 1), "public.t", 0),
    (datetime.date(2029, 12, 31), "public.t", 1),
    (datetime.date(2031, 1, 1), "public.gone", 1),
])  # fmt: skip
def test_a_waiver_that_has_ended_or_matches_nothing_is_a_finding(
    until: datetime.date, object_: str, stale: int
) -> None:
    waiver = Waiver("a-check", object_, "known", "me", until)
    made = run(result(Verdict.WAIVED, waived=((BAD, "known"),)), waivers=(waiver,))
    assert sum(r.check == "waivers-current" for r in made.results) == stale
    assert made.status()[0] == stale


def test_junit_counts_what_it_lists() -> None:
    made = run(
        result(Verdict.PASSED), result(Verdict.FAILED, "b", findings=(BAD,)), result(Verdict.BROKEN, "c", reason="r"),
        result(Verdict.SKIPPED, "d", reason="none"), result(Verdict.WAIVED, "e", waived=((BAD, "known (me)"),)),
    )  # fmt: skip
    root = ET.fromstring(junit.render(made))
    for suite in root.iter("testsuite"):
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[kind]) == len(suite.findall(f"testcase/{tag}"))
    assert root.attrib["failures"] == "1"
    assert "disabled" not in junit.render(made)
    names = [(c.attrib["classname"], c.attrib["name"]) for c in root.iter("testcase")]
    assert len(names) == len(set(names))
    assert "alter table public.t" in (root.findtext(".//failure") or "")


@given(st.text(min_size=1), st.text(), st.text())
def test_any_text_survives_in_every_report(name: str, observed: str, remedy: str) -> None:
    """Control characters, lone surrogates, markup and whatever else a name of the database can hold."""
    bad = Finding(name, observed, remedy, detail=name, rows=remedy)
    made = run(result(Verdict.FAILED, findings=(bad,)), result(Verdict.BROKEN, "b", reason=observed))
    ET.fromstring(junit.render(made).encode("utf-8"))
    document = json.loads(findings.render(made))
    assert document["results"][0]["findings"][0]["object"] == name
    assert any("exit 1" in line for line, _ in terminal.lines(made, full=True))


def test_attempts_are_summed_over_the_checks_that_attack() -> None:
    """Without any there is no such line, and no division by nothing."""
    attacks = [result(Verdict.PASSED, id, attempts=n, seconds=s) for id, n, s in (("b", 11_000, 8.1), ("c", 204, 1.0))]
    made = run(result(Verdict.PASSED, seconds=60.0), *attacks)
    told = [line for line, _ in terminal.lines(made, full=True) if line.startswith("attacks")]
    assert told == ["attacks: 11,204 attempts in 9.1 s (1,231/s), effort default, seed 1; --seed=1 replays them"]
    assert not [line for line, _ in terminal.lines(run(result(Verdict.PASSED)), full=True) if "attempts" in line]
    assert any("1 attempts" in line for line, _ in terminal.lines(run(result(Verdict.PASSED, attempts=1)), full=True))


def _proposed(made: Run) -> list[str]:
    """The last lines that a run prints about what it did not examine."""
    told = [line for line, _ in terminal.lines(made, full=False)]
    return [line.strip() for line in told if " = " in line or "not examined, since" in line]


def _skipped(check: str, subject: str, reason: str) -> Result:
    return result(Verdict.SKIPPED, check, subject=subject, reason=reason)


def test_a_proposed_skip_is_no_broader_than_what_was_not_examined() -> None:
    """A line for the whole check only where all its cases say the same; what is printed is a contract's."""
    made = run(
        result(Verdict.PASSED, "b", subject="t.a"), _skipped("b", 't."b', "no rows"), _skipped("b", "t.c", "no rows"),
        _skipped("c", "t.a", "no rows"), _skipped("c", "t.b", "no rows"),
        _skipped("d", "t.a", "no rows"), _skipped("d", "t.b", "no key"), _skipped("e", "", "none"),
    )  # fmt: skip
    lines = _proposed(made)
    assert tomllib.loads("\n".join(lines)) == {
        'b:t."b': "no rows", "b:t.c": "no rows", "c": "no rows", "d:t.a": "no rows", "d:t.b": "no key", "e": "none",
    }  # fmt: skip
    page = html.render(made)
    for line in lines:
        assert escape(line) in page


def test_what_findings_say_is_missing_is_proposed_for_no_skip() -> None:
    def missing(check: str, object_: str, detail: str = "") -> Result:
        return result(Verdict.FAILED, check, subject=object_, findings=(Finding(object_, "none", "", detail=detail),))

    reasons = {
        "t": "p.gone does not exist", "c": "p.t, column C does not exist",
        "v": "a vector column C of p.t does not exist",
        "f": "p.f does not exist", "o": "p.f with the declared arguments does not exist",
    }  # fmt: skip
    empty = [_skipped("a", name, reason) for name, reason in reasons.items()]
    found = [missing("tables-exist", "p.gone"), missing("columns-exist", "p.t", '"C"')]
    found.append(missing("function-exists", "p.f"))
    made = run(*empty, *found)
    told = "not examined, since what they are about is missing, as findings say: a c, a f, a o, a t, a v"
    assert _proposed(made) == [f"muva: {told}"]
    assert "under [skips]" not in html.render(made)
    assert len(_proposed(run(*empty))) == len(empty), "nothing explains it"
    other = [_skipped("a", "t", "p.go does not exist"), _skipped("a", "u", "p.gone does not exist; p.t has no rows")]
    assert len(_proposed(run(*other, *found))) == len(other)


def test_results_cross_process_borders_unchanged() -> None:
    original = result(Verdict.FAILED, findings=(BAD,), waived=((BAD, "w"),), unverified=(("t", "why"),), attempts=3)
    assert from_json(to_json(original)) == original


def test_reports_are_written_whole_and_trouble_with_one_is_told(tmp_path: Path) -> None:
    made = run(result(Verdict.PASSED))
    write(made, tmp_path / "new")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "junit.xml", "findings.json", "report.html", "catalog.json",
    }  # fmt: skip
    (tmp_path / "file").write_text("")
    write(made, tmp_path / "file")
    assert "cannot write junit.xml" in " ".join(made.troubles)
    assert made.status()[0] == 3
