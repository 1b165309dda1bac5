"""What makes a finding whole: SQL that shows it and runs, masked keys of the rows, tenants, limits, owners."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from pgconform.reports import findings, gitlab, html, junit, sarif

from pgconform.catalogue_of_checks import load
from pgconform.checks import Check, Evidence, evaluate
from pgconform.contract import Contract
from pgconform.database import Database
from pgconform.introspect import snapshot
from pgconform.judging import text
from pgconform.model import Finding, Result, Verdict
from pgconform.reproduce import EXCEPTED, KEYS, SHOWN, shown, tenant_digest, topic
from tests.conftest import Connect
from tests.proving import contract_of, transaction
from tests.runs import run_of


@pytest.mark.parametrize("check", load().values(), ids=lambda check: check.id)
def test_what_shows_an_object_of_the_catalogue_runs(connect: Connect, check: Check) -> None:
    """Also where there is no such object, which is what some checks find."""
    for name in ("auth.uid(uuid)", "hotels.content", "public", "postgres", 'no."Such ""thing"', "every role", "vector"):
        if asked := shown((check.id, topic(check)), name):
            connect("muva").execute(asked.encode())


def test_what_is_named_for_checks_exists() -> None:
    known = {check.id for check in load().values()} | {topic(check) for check in load().values()}
    assert known >= {*SHOWN, *EXCEPTED}
    assert not SHOWN.keys() & EXCEPTED.keys()


def _evaluated(connection: psycopg.Connection[tuple[object, ...]], check: str, contract: Contract) -> Result:
    evidence = Evidence(contract, snapshot(connection), Database(connection), datetime.date(2026, 11, 1))
    result = evaluate(load()[check], evidence)
    assert result.verdict is Verdict.FAILED, result.reason
    return result


def test_masked_keys_lead_to_the_rows_and_tell_no_value(connect: Connect) -> None:
    """At most five of them; the printed SELECT shows them beside the rows; tenants' numbers add up to the count."""
    contract, connection = contract_of("muva"), connect("muva")
    with transaction(connection, contract):
        connection.execute("set local session_replication_role = replica")
        connection.execute(
            "update hotels.policies set tenant_id = 'canarytenant'"
            " where ctid in (select ctid from hotels.policies limit 9)"
        )
        (finding,) = [f for f in _evaluated(connection, "tenant-known", contract).findings if f.count == 9]
        rows = connection.execute(finding.rows.encode()).fetchall()
    assert len(finding.keys) == KEYS
    assert all(len(key) == 8 and int(key, 16) >= 0 for key in finding.keys)
    assert {row[0] for row in rows} >= set(finding.keys)
    assert len(rows) == 9
    assert finding.tenants == ((tenant_digest("canarytenant"), 9),)
    told = Result("tenant-known", "muva", Verdict.FAILED, findings=(finding,))
    for report in (text(told), *(r.render(run_of([told])) for r in (html, findings, junit, gitlab, sarif))):
        assert "canarytenant" not in report
    for report in (text(told), *(r.render(run_of([told])) for r in (html, findings, junit))):
        assert finding.keys[0] in report


_NAMED = (
    "select user_id::text from public.user_tenant_permissions union select tenant_id::text"
    " from public.user_tenant_permissions"
)


def test_a_session_that_sees_too_much_is_shown_by_a_script(connect: Connect) -> None:
    """It counts, as that session, just the foreign rows that were observed; tenants are counted by digest."""
    contract, connection = contract_of("muva"), connect("muva")
    with transaction(connection, contract):
        connection.execute("alter table hotels.content disable row level security")
        (finding,) = _evaluated(connection, "foreign-rows-hidden", contract).findings
        script = finding.script.removeprefix("begin;").removesuffix("rollback;")
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(script.encode())
            while cursor.nextset():
                pass
            ((_, _, foreign),) = cursor.fetchall()
        named = connection.execute(_NAMED).fetchall()
    assert f"sees {foreign} row(s)" in finding.observed
    assert [value for (value,) in named if value in finding.script] == []
    assert finding.tenants
    assert all(len(tenant) == 12 and number > 0 for tenant, number in finding.tenants)


def test_the_owner_is_that_of_the_check_or_of_the_first_pattern_that_fits() -> None:
    promise = 'owner = "platform"\n[owners]\norphans = "billing"\n"hotels.*" = "content"\n"*.content" = "nobody"'
    contract = contract_of("muva", promise)
    assert contract.owner_of("orphans", "hotels.content") == "billing"
    assert contract.owner_of("tenant-known", "hotels.content") == "content"
    assert contract.owner_of("tenant-known", "public.users") == "platform"
    assert contract_of("muva").owner_of("tenant-known", "public.users") == ""


@pytest.mark.parametrize(
    ("finding", "says"),
    [
        (Finding("t", "o", "").against(0.832, 0.95, "share"), "83.2% against 95%"),
        (Finding("t", "o", "").against(1234.5, 200, "ms"), "1,234.5 against 200 ms"),
        (Finding("t", "o", "").against(26.5, 24, "hours"), "26.5 against 24 hours"),
        (Finding("t", "o", ""), ""),
    ],
)
def test_a_value_stands_against_its_limit(finding: Finding, says: str) -> None:
    assert finding.measured == says


def _rich() -> list[Result]:
    finding = Finding("public.a", "o", "", keys=("0badcafe",), tenants=(("feedbeefcafe", 90), ("c0ffeec0ffee", 1)))
    finding = replace(finding.against(0.5, 0.9, "share"), owner="the <team>")
    other = replace(finding, object="public.b", tenants=(("feedbeefcafe", 1000),))
    return [
        Result("orphans", "muva", Verdict.FAILED, findings=(finding, other)),
        Result("retention", "muva", Verdict.FAILED, findings=(finding,)),
    ]


def test_every_report_says_value_and_limit_and_owner() -> None:
    run = run_of(_rich())
    for report in (html.render(run), junit.render(run), text(run.results[0])):
        assert "50% against 90%" in report
        assert "0badcafe" in report
    assert "the &lt;team&gt;" in html.render(run)
    for report in (gitlab.render(run), sarif.render(run), junit.render(run).replace("&lt;", "<").replace("&gt;", ">")):
        assert "the <team>" in report
    (told, _) = json.loads(findings.render(run))["results"][0]["findings"]
    assert (told["value"], told["limit"], told["unit"], told["owner"]) == (0.5, 0.9, "share", "the <team>")
    assert told["keys"] == ["0badcafe"]
    assert told["tenants"] == {"feedbeefcafe": 90, "c0ffeec0ffee": 1}


def test_one_question_that_shows_several_findings_is_printed_once() -> None:
    one, two = (Finding("public.a", f"the column {name} does not exist", "", rows="select 1;") for name in "xy")
    other = replace(one, object="public.b", rows="select 2;")
    told = text(Result("columns-exist", "muva", Verdict.FAILED, findings=(one, two, other, one)))
    assert [line.strip() for line in told.splitlines() if "shown by" in line] == [
        "shown by: select 1;", "shown by: the same", "shown by: select 2;", "shown by: select 1;",
    ]  # fmt: skip
    assert "shown by" not in text(Result("orphans", "muva", Verdict.FAILED, findings=(replace(one, rows=""),) * 2))


def test_findings_read_again_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "findings.json"
    file.write_text(findings.render(run_of(_rich())), encoding="utf-8")
    assert findings.read(file).results == _rich()


def test_tenants_and_relations_are_shaded_by_check() -> None:
    """The most is darkest; an empty cell has no shade, and no number."""
    page = html.render(run_of(_rich()))
    assert "Rows by tenant" in page
    assert '<tr><td>feedbeefcafe<td class="n h9">1,090<td class="n h6">90</tr>' in page
    assert '<tr><td>c0ffeec0ffee<td class="n h1">1<td class="n h1">1</tr>' in page
    assert "Findings by relation" in page
    assert '<tr><td>public.a<td class="n h9">1<td class="n h9">1</tr>' in page
    assert '<tr><td>public.b<td class="n h9">1<td></tr>' in page
    assert "Rows by tenant" not in html.render(run_of([]))
