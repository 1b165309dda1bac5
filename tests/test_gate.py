"""What gates: severities, known findings, changes between runs; and what a run leaves that was ended by force."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pgconform.reports.compare import compared

from pgconform.baseline import Baseline, read, written
from pgconform.drift import CHANGES, CLOSES, OPENS, drift
from pgconform.model import Finding, Mistake, Result, Verdict
from pgconform.targets.embedded import server
from pgconform.targets.server import Server
from tests.incomplete import CUT, EVERY, told_everywhere
from tests.test_run import SMALL, keys, results, run


@pytest.fixture(scope="module")
def live() -> Iterator[Server]:
    """A server that the tests of this module may change."""
    with server(["victorysync"]) as started:
        yield started


def pgconform(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pgconform", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600, check=False)


def changed(live: Server, *statements: str) -> None:
    with psycopg.connect(live.dsn("victorysync"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def asked(live: Server, *more: str) -> tuple[str, ...]:
    return ("--contract=victorysync", f"--target=live:{live.dsn('victorysync')}", *SMALL, *more)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_only_what_the_baseline_does_not_know_fails(live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
    changed(live, "alter table public.calls disable row level security")
    try:
        assert run(*asked(live), *workers, out=tmp_path / "").returncode == 1
        made = pgconform("baseline", str(tmp_path), cwd=tmp_path)
        left = r"; \d+ case\(s\) not asked: -k 'row_security or every_declared_table'"
        assert re.fullmatch(rf"wrote baseline.json: 2 known finding\(s\){left}\n", made.stdout)
        known = (*asked(live, "--baseline=baseline.json"), *workers)
        done = run(*known, out=tmp_path)
        assert done.returncode == 0, done.stdout
        assert "waived: row-security-enabled: public.calls: in the baseline of 20" in done.stdout
        changed(live, "alter table public.contacts disable row level security")
        done = run(*known, out=tmp_path)
        assert (done.returncode, keys(tmp_path)) == (1, {"row-security-enabled: public.contacts"})
        changed(live, "alter table public.calls enable row level security")
        changed(live, "alter table public.contacts enable row level security")
        done = run(*known, out=tmp_path)
        assert done.returncode == 0
        assert "2 finding(s) of the baseline are gone: write it anew" in done.stdout
    finally:
        changed(live, "alter table public.calls enable row level security")
        changed(live, "alter table public.contacts enable row level security")


@pytest.mark.parametrize(("text", "said"), [
    (None, "cannot be read: No such file or directory; write one with: pgconform baseline"),
    ("{}", "not a baseline of format 1"), ("[1]", "not a baseline of format 1"), ("nonsense", "not a baseline"),
    ('{"kind":"pgconform baseline","format":2,"date":"x","findings":{}}', "not a baseline of format 1"),
    ('{"kind":"pgconform baseline","format":1,"date":"x","findings":{"a":1}}', "not a baseline of format 1"),
])  # fmt: skip
def test_a_baseline_that_is_none_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "b.json").write_text(text, encoding="utf-8")
    with pytest.raises(Mistake, match=said):
        read(tmp_path / "b.json")


def test_a_baseline_keeps_what_an_earlier_one_knew_and_no_stale_waiver(tmp_path: Path) -> None:
    new, old, waived = Finding("public.new", "x", ""), Finding("public.old", "x", ""), Finding("public.w", "x", "")
    rows = [
        Result("a", "demo", Verdict.FAILED, findings=(new,), waived=((old, "in the baseline of 2026-01-01"),)),
        Result("b", "demo", Verdict.WAIVED, waived=((waived, "known (me, until 2030-01-01)"),)),
        Result("waivers-current", "demo", Verdict.FAILED, findings=(new,)),
    ]
    (tmp_path / "b.json").write_text(written(rows, "2026-11-23"), encoding="utf-8")
    known = read(tmp_path / "b.json")
    assert known == Baseline("2026-11-23", {("demo", "a"): frozenset({"public.new", "public.old"})})
    broken = Result("a", "demo", Verdict.BROKEN, reason="no grant")
    assert (known.gone([broken]), known.gone([]), known.gone([rows[0]])) == (0, 0, 0)
    assert known.gone([Result("a", "demo", Verdict.PASSED)]) == 2


@pytest.mark.parametrize(("what", "status"), [("must", 1), ("should", 1), ("never", 0)])
def test_what_fails_a_run_is_chosen(live: Server, tmp_path: Path, what: str, status: int) -> None:
    changed(live, "alter table public.calls disable row level security")
    try:
        done = run(*asked(live, f"--fail-on={what}"), out=tmp_path)
    finally:
        changed(live, "alter table public.calls enable row level security")
    assert done.returncode == status, done.stdout
    assert f"exit {status}: does not conform" in done.stdout
    assert results(tmp_path)["fail_on"] == what


def test_advice_fails_where_that_is_asked(live: Server, tmp_path: Path) -> None:
    chosen = ("--contract=victorysync", f"--target=live:{live.dsn('victorysync')}", "-k", "index-redundant")
    changed(live, "create index again on public.contacts (org_id)", "create index twice on public.contacts (org_id)")
    try:
        advised = run(*chosen, out=tmp_path)
        assert (advised.returncode, results(tmp_path)["results"][0]["severity"]) == (0, "should"), advised.stdout
        failed = run(*chosen, "--fail-on=should", out=tmp_path)
        assert failed.returncode == 1, failed.stdout
        assert ET.parse(tmp_path / "junit.xml").find(".//failure") is not None
    finally:
        changed(live, "drop index public.again, public.twice")


@pytest.mark.parametrize("option", ["--report=sarf", "--fail-on=no", "--baseline=nowhere.json", "--out=/proc/none"])
def test_a_mistake_is_told_before_anything_is_asked(tmp_path: Path, option: str) -> None:
    done = run("--contract=muva", "--target=live:host=/nowhere", option, out=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert len([line for line in (done.stdout + done.stderr).splitlines() if line.strip()]) <= 3
    assert option.partition("=")[2] in done.stdout + done.stderr


DRIFTS = {
    "create table public.notes (id int)": {(CHANGES, "table public.notes", "is new"),
        (OPENS, "table public.notes", "row-level security is off")},
    "grant truncate on public.plans to anon": {(OPENS, "table public.plans", "anon may now TRUNCATE")},
    "alter table public.calls disable row level security":
        {(OPENS, "table public.calls", "row-level security is off")},
    'alter policy "members read" on public.contacts to anon, authenticated': {(OPENS, "table public.contacts",
        'policy "members read": roles: authenticated -> anon, authenticated')},
    'drop policy "members read" on public.contacts':
        {(CLOSES, "table public.contacts", 'policy "members read" is gone')},
    "create policy \"Weird \"\"Name\"\"\" on public.contacts using (org_id = org_id)":
        {(OPENS, "table public.contacts", 'policy "Weird ""Name""" is new')},
    "create policy r on public.contacts as restrictive using (true)":
        {(CLOSES, "table public.contacts", "policy r is new")},
    "alter role authenticated bypassrls": {(OPENS, "role authenticated", "BYPASSRLS is on")},
    "grant pg_read_all_data to authenticated":
        {(OPENS, "role authenticated", "member now of pg_read_all_data")},
    "alter default privileges in schema public grant all on tables to anon":
        {(OPENS, "default privileges of postgres in schema public on tables",
          "anon may now DELETE, INSERT, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE")},
    "alter default privileges for role authenticated revoke execute on functions from public":
        {(CLOSES, "default privileges of authenticated on functions", "public may no longer EXECUTE")},
    "revoke usage on schema public from anon": {(CLOSES, "schema public", "anon may no longer USAGE")},
    "alter table public.contacts add column secret text default 'c4n4ry'":
        {(CHANGES, "table public.contacts", "column secret is new")},
    "alter role authenticated set statement_timeout = '9s'": None,
    "comment on table public.contacts is 'x'": set(),
}  # fmt: skip


@pytest.mark.parametrize("statement", DRIFTS)
def test_what_drifted_is_told_and_what_opens_is_told_apart(live: Server, statement: str) -> None:
    from pgconform.drift import facts
    from pgconform.introspect import snapshot

    with psycopg.connect(live.dsn("victorysync")) as connection:
        before = facts(snapshot(connection))
        connection.execute(statement.encode())
        now = facts(snapshot(connection))
        connection.rollback()
    found = {(d.effect, d.object, d.text) for d in drift(before, now)}
    if statement.startswith("create table"):
        found = {d for d in found if "may now" not in d[2]}  # what default privileges give is told as well
    expected = DRIFTS[statement]
    if expected is None:
        assert {effect for effect, *_ in found} == {CHANGES}
    else:
        assert found == expected
    assert "c4n4ry" not in json.dumps(now)
    assert {d.effect for d in drift(now, before)} <= {OPENS, CLOSES, CHANGES}
    assert list(drift(now, now)) == []


def test_two_runs_are_compared(live: Server, tmp_path: Path) -> None:
    old, new, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    for place in (old, new, gone):
        place.mkdir()
    run(*asked(live), out=old)
    changed(live, "alter table public.calls disable row level security", "grant truncate on public.plans to anon")
    run(*asked(live), out=new)
    changed(live, "alter table public.calls enable row level security", "revoke truncate on public.plans from anon")
    run(*asked(live), out=gone)
    done = pgconform("compare", "old", "new", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (1, [
        "new: victorysync: client-dangerous-privileges: public.plans: anon truncate",
        "new: victorysync: realtime-row-security: public.calls",
        "new: victorysync: row-security-enabled: public.calls",
        "opens: victorysync: table public.calls: row-level security is off",
        "opens: victorysync: table public.plans: anon may now TRUNCATE",
    ])  # fmt: skip
    back = pgconform("compare", "new", "gone", "--format=json", cwd=tmp_path)
    told = json.loads(back.stdout)
    assert (back.returncode, told["worse"], [c["kind"] for c in told["changes"]]) == (0, False, ["gone"] * 3)
    assert {d["effect"] for d in told["drifts"]} == {CLOSES}
    same = pgconform("compare", "old/findings.json", "gone", cwd=tmp_path)
    assert (same.returncode, same.stdout) == (0, "nothing changed\n")
    report = pgconform("report", "new", "--since=old", "--report=html,markdown", "--out=again", cwd=tmp_path)
    assert report.stdout == "wrote html, markdown to again\n"
    assert "- new: row-security-enabled: public.calls" in (tmp_path / "again/comment.md").read_text(encoding="utf-8")
    page = (tmp_path / "again/report.html").read_text(encoding="utf-8")
    assert "<b>new</b>" in page
    missing = pgconform("compare", "old", "nowhere", cwd=tmp_path)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (4, 1)
    assert "nowhere: cannot be read" in missing.stderr
    (old / "catalog.json").unlink()
    assert compared(old, gone).worse, "what is not known is no pass"


@pytest.mark.parametrize(("signum", "told"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_run_that_is_ended_by_force_leaves_reports_that_say_so(
    live: Server, tmp_path: Path, signum: int, told: bool
) -> None:
    """Those of an earlier, complete run are not left to be taken for this one's."""
    assert run(*asked(live, EVERY), out=tmp_path).returncode == 0
    # Each case takes a moment: a run must not be over before the twentieth line is read on a busy machine.
    (tmp_path / "slow.py").write_text("import time\ndef pytest_runtest_teardown():\n    time.sleep(0.05)\n")
    command = [sys.executable, "-m", "pgconform", "run", f"--out={tmp_path}", "--contract=victorysync",
               f"--target=live:{live.dsn('victorysync')}", EVERY, "-v", "-v", "-p", "slow"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what runs behind it
    )  # fmt: skip
    assert process.stdout
    for number, _ in enumerate(line for line in process.stdout if "PASSED" in line):
        if number == 20:
            process.send_signal(signum)
            break
    output = process.communicate(timeout=600)[0]
    assert process.returncode == (2 if told else -signum), output
    document = told_everywhere(tmp_path, CUT)
    assert document["status"] == 2
    assert (document["counts"].get("passed", 0) >= 20) is told


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_run_of_a_part_says_so(live: Server, tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run(*asked(live, "-m", "gate"), *workers, out=tmp_path)
    assert done.returncode == 0, done.stdout
    told = results(tmp_path)
    assert told["selection"] == "-m gate -k 'row_security or every_declared_table'"
    assert told["unasked"] > 400 > len(told["results"])
    left = f"{told['unasked']:,} case(s) not asked: {told['selection']}"
    assert re.search(rf"exit 0: conforms: \d+ check\(s\) passed; {re.escape(left)}\n", done.stdout)
    assert told["reason"].endswith(left)


def test_a_run_that_stops_at_the_first_failure_is_cut_short(live: Server, tmp_path: Path) -> None:
    changed(live, "alter table public.calls disable row level security")
    try:
        done = run(*asked(live, "-x"), out=tmp_path)
    finally:
        changed(live, "alter table public.calls enable row level security")
    assert done.returncode == 2, done.stdout
    told = results(tmp_path)
    assert (told["complete"], told["counts"]["failed"]) == (False, 1)
    assert told["reason"].startswith("the run was cut short; by then: 1 finding(s) in 1 check(s)")


def test_a_full_disk_leaves_valid_reports_that_say_so(live: Server, tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk: what is written first fits, catalog.json does not."""
    command = [sys.executable, "-m", "pgconform", "run", f"--out={tmp_path}", "--history=none", "-p no:cacheprovider",
               *asked(live)]  # fmt: skip
    limit = 30_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, preexec_fn=limited, timeout=600, check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot write catalog.json" in done.stdout
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert not list(tmp_path.glob(".*.*")), "no draft is left"
    told = results(tmp_path)
    assert (told["complete"], told["status"]) == (False, 3)
    assert "cannot write catalog.json" in told["reason"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many kB; only root can make one."""
    mounted = []

    def make(size: int) -> Path:
        place = tmp_path / f"disk {size}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "pgconform", place], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no disk can be made here; the limit of a file's size stands for it")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("room", [80, 100, 130])
def test_a_disk_that_fills_leaves_valid_reports_that_say_so(
    live: Server, disk: Callable[[int], Path], room: int
) -> None:
    """Each tells of the one that could not be written, whichever it is, or that its run was cut short."""
    place = disk(room)
    done = run(*asked(live, EVERY, "--history=none", "-p", "no:cacheprovider"), out=place)
    assert done.returncode == 3, done.stdout
    missing = re.findall(r"cannot write (\S+) to", done.stdout)
    assert missing
    assert "No space left on device" in done.stdout
    told = told_everywhere(place, f"cannot write {missing[0]}")
    assert told["counts"].get("passed", 0) > 10, "what fits is written, and what matters most first"


def test_reports_do_not_slow_the_end_of_a_run(live: Server, tmp_path: Path) -> None:
    started = time.monotonic()
    assert run(*asked(live, "--report=sarif,github,gitlab,markdown,prometheus"), out=tmp_path).returncode == 0
    assert time.monotonic() - started < 60
