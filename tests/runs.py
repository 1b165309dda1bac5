"""Runs as reports are given them, without a database: one with a case of each kind, and a large one."""

from __future__ import annotations

import datetime
import random
from typing import Any

from pgconform.contract_file import load, resolve
from pgconform.history import Past
from pgconform.model import Figure, Finding, Result, Severity, Verdict
from pgconform.results import Run

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'single' \x00\x1b \u202eright\udc80"


def run_of(results: list[Result], **parts: Any) -> Run:
    run = Run((load(resolve("muva")),), {"muva": "PostgreSQL 16"}, results, files={"muva": resolve("muva")}, **parts)
    run.started = datetime.datetime(2026, 11, 1, 3, 0, tzinfo=datetime.UTC)
    run.finished = run.started + datetime.timedelta(seconds=48)
    return run


def small() -> Run:
    """One case of each kind, with names that try to break out."""
    remedy = 'alter table public."t" enable row level security;'
    finding = Finding(
        f'public."{HOSTILE}"', f"row security is off {HOSTILE}", remedy, rows="select * from public.t;", count=3,
        script="begin; select 1; rollback;",
    )  # fmt: skip
    many = tuple(Finding(f"public.t{n}", "no index", f"create index on public.t{n} (a);") for n in range(30))
    waived = ((Finding("public.w", "kept", ""), "owner: platform, until 2027-01-01"),)
    results = [
        Result("row-security-enabled", "muva", Verdict.FAILED, "Row security is on", "public.t", "Why it matters.",
               findings=(finding,), examined=1, looked_for="tables"),
        Result("index-redundant", "muva", Verdict.FAILED, "No index twice", severity=Severity.SHOULD, findings=many),
        Result("orphans", "muva", Verdict.BROKEN, "No orphans", "public.o", unverified=(("public.o", "grant SELECT"),)),
        Result("tables-declared", "muva", Verdict.WAIVED, "Declared", waived=waived),
        Result("chunks-complete", "muva", Verdict.SKIPPED, "Chunks", reason="nothing to examine"),
        Result("grants-excess", "muva", Verdict.PASSED, "Grants", "public.p", "Why.", examined=4,
               figures=(Figure("size of public.p", 12.0, "bytes"),)),
    ]  # fmt: skip
    case = ("row-security-enabled", "public.t")
    past = Past(
        datetime.datetime(2026, 10, 31, 3, 0, tzinfo=datetime.UTC).timestamp(),
        {case: frozenset({"public.gone"}), ("orphans", "public.o"): frozenset()},
        {case: ("passed", "", "failed"), ("orphans", "public.o"): ("passed", "passed", "passed")},
        {"size of public.p": [(1.0, 10.0), (2.0, 11.0)]},
    )
    return run_of(results, past={"muva": past})


def large(ids: int = 120) -> Run:
    """3,000 cases of so many checks, 100 of them with three findings each; a past of 29 runs of all verdicts."""
    results, drawn = [], random.Random(1)
    for number in range(3000):
        bad = number % 30 == 0
        found = tuple(Finding(f"hotels.table_{number}", f"misses something of {n}", f"alter table hotels.table_{number}"
                              " enable row level security;", str(n)) for n in range(3)) if bad else ()  # fmt: skip
        results.append(
            Result(f"check-{number % ids}", "muva", Verdict.FAILED if bad else Verdict.PASSED,
                   "Every table does what it should", f"hotels.table_{number}", "It would not, else.", ("muva-9",),
                   examined=1, looked_for="tables", findings=found, seconds=0.01)
        )  # fmt: skip
    likely = ["passed"] * 6 + ["failed", "failed", "broken", "skipped", "waived", ""]
    verdicts = {(r.check, r.subject): tuple(drawn.choices(likely, k=29)) for r in results}
    keys: dict[tuple[str, str], frozenset[str]] = dict.fromkeys(verdicts, frozenset())
    return run_of(results, past={"muva": Past(1.0, keys, verdicts, {})})
