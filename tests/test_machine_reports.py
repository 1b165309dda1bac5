"""The reports that machines read, each held by its schema or by a real reader of its format."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pgconform.reports import (
    ALWAYS,
    FILES,
    findings,
    github,
    gitlab,
    html,
    junit,
    markdown,
    prometheus,
    sarif,
    terminal,
    write,
)
from pgconform.reports.places import place
from prometheus_client.parser import text_string_to_metric_families

from pgconform.asked import REPORTS
from pgconform.contract_file import resolve
from pgconform.model import Finding, Result, Verdict
from pgconform.results import Run
from tests.runs import large, run_of, small

SCHEMAS = Path(__file__).parent / "schemas"
SARIF = jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8")))
JENKINS = xmlschema.XMLSchema10(SCHEMAS / "junit-10.xsd")
# docs.gitlab.com, "Code Quality report format": what an issue must have.
GITLAB: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!/|\\./).+"},
                    "lines": {"type": "object", "required": ["begin"], "properties": {"begin": {"type": "integer"}}},
                },
            },
        },
    },
}


def cut_short() -> Run:
    run = small()
    run.interrupted = True
    run.troubles.append("a node went away")
    return run


RENDERED: dict[str, Callable[[Run], str]] = {
    "findings": findings.render, "junit": junit.render, "sarif": sarif.render, "github": github.render,
    "gitlab": gitlab.render, "markdown": markdown.render, "prometheus": prometheus.render,
}  # fmt: skip


def test_what_can_be_asked_for_is_what_can_be_written(tmp_path: Path) -> None:
    assert set(FILES) == {*ALWAYS, *REPORTS}
    write(small(), tmp_path, tuple(FILES))
    assert {path.name for path in tmp_path.iterdir()} == set(FILES.values())


@pytest.mark.parametrize("run", [small, large, cut_short], ids=lambda make: make.__name__)
def test_sarif_fits_its_schema(run: Callable[[], Run]) -> None:
    document = json.loads(sarif.render(run()))
    SARIF.validate(document)
    (told,) = document["runs"]
    assert {entry["ruleId"] for entry in told["results"]} <= {rule["id"] for rule in told["tool"]["driver"]["rules"]}
    prints = [entry["partialFingerprints"]["pgconform/v1"] for entry in told["results"]]
    assert len(prints) == len(set(prints)), "two findings would be taken for one"


def test_sarif_tells_waivers_and_what_is_unverified() -> None:
    (told,) = json.loads(sarif.render(small()))["runs"]
    entries = {entry["ruleId"]: entry for entry in told["results"]}
    suppressed = {id for id, entry in entries.items() if entry.get("suppressions")}
    assert suppressed == {"tables-declared"}
    assert entries["tables-declared"]["suppressions"][0]["justification"] == "owner: platform, until 2027-01-01"
    assert "could not be verified: grant SELECT" in entries["orphans"]["message"]["text"]
    assert "nothing was examined" in entries["chunks-complete"]["message"]["text"]
    levels = {id: entry["level"] for id, entry in entries.items()}
    assert levels["row-security-enabled"] == levels["orphans"] == "error"
    assert levels["index-redundant"] == levels["chunks-complete"] == "warning"
    assert told["invocations"][0]["executionSuccessful"] is True
    (told,) = json.loads(sarif.render(cut_short()))["runs"]
    (invocation,) = told["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 2)
    notes = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert any("cut short" in note for note in notes)
    assert "a node went away" in notes


def test_fingerprints_do_not_depend_on_the_run() -> None:
    """Nor on the order, on what is observed, or on the other findings."""
    found = Finding("hotels.policies", "5 of 9 rows", "", "a column")
    one = run_of([Result("a-check", "muva", Verdict.FAILED, "x", "hotels.policies", findings=(found,))])
    two = small()
    other = replace(found, observed="6 of 10 rows")
    two.results.insert(0, Result("a-check", "muva", Verdict.FAILED, "y", "hotels.policies", findings=(other,)))

    def of(run: Run) -> str:
        entries = json.loads(sarif.render(run))["runs"][0]["results"]
        return str(next(e for e in entries if e["ruleId"] == "a-check")["partialFingerprints"]["pgconform/v1"])

    assert of(one) == of(two)
    assert {gitlab_print(one)} < {issue["fingerprint"] for issue in json.loads(gitlab.render(two))}


def gitlab_print(run: Run) -> str:
    (issue,) = json.loads(gitlab.render(run))
    return str(issue["fingerprint"])


@pytest.mark.parametrize(
    ("object_", "header"),
    [
        ("hotels.policies", '[tables."hotels.policies"]'),
        ("hotels.policies.embedding", '[tables."hotels.policies"]'),
        ("public.match_hotels_documents(extensions.vector, text)", '[functions."public.match_hotels_documents"]'),
        ("hotels.nothing_like_it", None),
    ],
)
def test_a_finding_points_at_its_section(object_: str, header: str | None) -> None:
    run = run_of([])
    result = Result("a-check", "muva", Verdict.FAILED, findings=(Finding(object_, "x", ""),))
    path, line = place(run, result, result.findings[0])
    assert path == "fixtures/contracts/muva.toml"
    lines = resolve("muva").read_text(encoding="utf-8").splitlines()
    assert (lines[line - 1] if header else line) == (header or 1)


def test_sections_in_multi_line_text_are_no_sections(tmp_path: Path) -> None:
    lines = ('name = "x"', 'note = """', '[tables."public.a"]', '"""', '[tables."Public".x]')
    text = "\n".join((*lines, """[tables.'public."A"']""", '[tables."public.a"]', ""))
    tomllib.loads(text)
    file = tmp_path / "x.toml"
    file.write_text(text, encoding="utf-8")
    run = run_of([])
    run.files = {"muva": file}
    result = Result("a-check", "muva", Verdict.FAILED)
    found = [place(run, result, Finding(name, "", ""))[1] for name in ("public.a", 'public."A"', "public.b")]
    assert found == [7, 6, 1]


@pytest.mark.parametrize("run", [small, large, cut_short], ids=lambda make: make.__name__)
def test_junit_fits_the_schema_of_jenkins(run: Callable[[], Run]) -> None:
    JENKINS.validate(StringIO(junit.render(run())))


@pytest.mark.parametrize("run", [small, large, cut_short], ids=lambda make: make.__name__)
def test_gitlab_issues_have_what_they_must(run: Callable[[], Run]) -> None:
    issues = json.loads(gitlab.render(run()))
    jsonschema.validate(issues, GITLAB)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    order = ["blocker", "critical", "major", "minor", "info"]
    ranks = [order.index(issue["severity"]) for issue in issues]
    assert sorted(ranks[:3]) == ranks[:3]
    assert issues


def unescaped(text: str) -> str:
    return text.replace("%0A", "\n").replace("%0D", "\r").replace("%3A", ":").replace("%2C", ",").replace("%25", "%")


def test_annotations_are_ten_at_most_and_the_worst_first() -> None:
    commands = github.commands(small())
    form = re.compile(r"::(error|warning|notice) (?:file=([^,]+),line=(\d+),)?title=([^:,]+)::([^\n\r]+)")
    parts = [match.groups() for command in commands if (match := form.fullmatch(command))]
    assert len(parts) == len(commands) == 10
    assert [title for _, _, _, title, _ in parts[:3]] == ["row-security-enabled", "orphans", "chunks-complete"]
    message = unescaped(parts[0][4])
    assert "<script>alert(1)</script> & \"quotes\" 'single' \ufffd\ufffd \ufffdright?" in message
    assert "\nremedy: alter table" in message
    assert "25 more" in parts[-1][4]  # 30 of advice, one of each other kind, and this line
    assert github.commands(cut_short())[0].startswith("::error title=incomplete::the run was cut short")
    assert github.commands(run_of([Result("a", "muva", Verdict.PASSED)])) == []


def test_no_name_is_taken_for_a_command_of_the_workflow() -> None:
    """GitHub carries out any line that begins with two colons, whoever printed it."""
    run = small()
    evil = Finding('public."a\n::error::fake"', "x\n::add-mask::y", "::set-output name=a::b")
    run.results.append(Result("z", "muva", Verdict.FAILED, findings=(evil,), waived=((evil, "\n::debug::w"),)))
    printed = "\n".join(text for text, _ in terminal.lines(run, full=True, annotated=True)).splitlines()
    begin = next(n for n, text in enumerate(printed) if text.startswith("::stop-commands::"))
    token = printed[begin].rpartition("::")[2]
    end = printed.index(f"::{token}::")
    loud = [text for text in printed[:begin] + printed[end + 1 :] if text.lstrip().startswith("::")]
    assert loud == github.commands(run)
    assert any(text.lstrip().startswith("::") for text in printed[begin + 1 : end]), "there was something to silence"
    assert len(token) == 32


def test_the_steps_summary_is_appended_once_and_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = large()
    run.finished = None
    write(run, tmp_path, ("github",))
    assert summary.read_text(encoding="utf-8") == "before\n"
    write(large(), tmp_path, ("github",))
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n### pgconform: ❌ does not conform")
    first = large().results[0]
    many = run_of([replace(first, subject=str(n), findings=first.findings * 10) for n in range(2000)])
    for rendered, largest in ((github.render(many), 1024**2), (markdown.render(many), 65_536)):
        assert len(rendered.encode()) <= largest
        assert re.search(r"and [\d]+ more, in findings\.json\n$", rendered)


def test_names_are_no_markup_in_a_comment() -> None:
    run = small()
    evil = Finding("public.![x](http://e.example/a.png)", "@everyone | `code` | www.e.example <b>x</b>\n# head", "")
    run.results.append(Result("z-check", "muva", Verdict.FAILED, "z", findings=(evil,)))
    text = markdown.render(run)
    page = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    kinds = {child.type for token in page for child in (token.children or ())} | {token.type for token in page}
    assert not kinds & {"image", "link_open", "html_inline", "html_block", "code_inline", "fence"}
    (row,) = [line for line in text.splitlines() if "z-check" in line]
    assert re.search(r"(?<!\\)[@`<]|http://|www\.", row) is None, "neither mention nor autolink"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(token.type == "tr_open" for token in page) == len(rows) - 1, (
        "each line a row, but the one below the head"
    )


def test_prometheus_reads_what_is_written() -> None:
    run = small()
    families = text_string_to_metric_families(prometheus.render(run))
    found = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert found["pgconform_run_status",] == 1
    assert found["pgconform_run_complete",] == 1
    assert found["pgconform_run_duration_seconds",] == 48
    assert found["pgconform_checks", "broken", "muva"] == 1
    assert found["pgconform_findings", "index-redundant", "muva", "should"] == 30
    assert found["pgconform_figure", "bytes", "muva", "size of public.p"] == 12
    cut = {s.name: s.value for f in text_string_to_metric_families(prometheus.render(cut_short())) for s in f.samples}
    assert (cut["pgconform_run_complete"], cut["pgconform_run_status"]) == (0, 2)


@pytest.mark.parametrize("name", [*RENDERED, "html"])
def test_a_run_that_has_not_finished_says_so_in_every_report(name: str) -> None:
    """What stands there from the start of a run until its end, and after whatever ends it by force."""
    run = run_of([])
    run.finished = None
    text = {**RENDERED, "html": html.render}[name](run)
    if name == "prometheus":
        assert "pgconform_run_complete 0.0" in text
    elif name == "findings":
        told = json.loads(text)
        assert (told["status"], told["complete"], told["finished"]) == (2, False, None)
    else:
        assert "cut short" in text


@pytest.mark.parametrize("name", [*RENDERED, "html", "terminal"])
def test_every_report_tells_that_only_a_part_was_asked(name: str) -> None:
    """Whoever reads 'conforms' learns of how many cases that was not said, and by which options."""
    run = run_of([Result("grants-excess", "muva", Verdict.PASSED, "Grants", examined=4)])
    renders = {**RENDERED, "html": html.render, "terminal": lambda run: "".join(dict(terminal.lines(run, full=True)))}
    assert "not asked: " not in renders[name](run)
    run.selection, run.unasked = "-m gate -k 'a or b'", 1355
    text = re.sub(r"\\(.)", r"\1", renders[name](run)) if name in ("markdown", "github") else renders[name](run)
    if name == "prometheus":
        assert "pgconform_run_cases_not_asked 1355.0" in text
    else:
        assert "1,355 case(s) not asked: -m gate -k 'a or b'" in text.replace("&#x27;", "'").replace("&apos;", "'")
    if name == "findings":
        told = json.loads(text)
        assert (told["selection"], told["unasked"], told["complete"]) == (run.selection, 1355, True)
        assert findings.render(findings._run(told)) == text
    if name == "junit":
        JENKINS.validate(StringIO(text))
    if name == "sarif":
        SARIF.validate(json.loads(text))


NAMES = st.text(min_size=1, max_size=40)


@settings(max_examples=20)
@given(NAMES, NAMES, NAMES)
def test_any_text_survives_in_every_machine_report(name: str, observed: str, reason: str) -> None:
    found = Finding(name, observed, observed, detail=name)
    run = run_of([
        Result("a-check", "muva", Verdict.FAILED, observed, name, findings=(found,)),
        Result("b-check", "muva", Verdict.BROKEN, observed, name, reason=reason),
        Result("c-check", "muva", Verdict.WAIVED, observed, name, waived=((found, reason),)),
    ])  # fmt: skip
    SARIF.validate(json.loads(sarif.render(run)))
    jsonschema.validate(json.loads(gitlab.render(run)), GITLAB)
    JENKINS.validate(StringIO(junit.render(run)))
    assert all(len(command.splitlines()) == 1 for command in github.commands(run))
    assert markdown.render(run).count("\n| ") == 4
    list(text_string_to_metric_families(prometheus.render(run)))


@settings(max_examples=20, deadline=None)  # eight documents each
@given(NAMES, NAMES)
def test_a_run_read_again_gives_the_same_reports(name: str, observed: str) -> None:
    run = small()
    run.results.append(Result("z", "muva", Verdict.FAILED, "t", name, findings=(Finding(name, observed, observed),)))
    text = findings.render(run)
    path = Path(resolve("muva"))
    again = findings._run(json.loads(text))
    assert again.files == {"muva": Path("fixtures/contracts/muva.toml")} != {"muva": path}
    assert again.past == run.past
    assert findings.render(again) == text
    for render in (junit.render, sarif.render, gitlab.render, markdown.render, prometheus.render, html.render):
        assert render(again) == render(run)
