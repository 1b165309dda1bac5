"""Pages as a real browser shows them, and what they are asked in several tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pgconform.reports import html
from pgconform.reports.beside import ACCESS, BENCH, SCALE, keep

from pgconform.results import Run
from tests.runs import HOSTILE


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


def covered(opened: Opened, selector: str) -> bool:
    """True where the bar, which stays in sight, lies over the element."""
    top = "document.querySelector(selector).getBoundingClientRect().top"
    bar = "document.querySelector('.bar').getBoundingClientRect()"
    return bool(
        opened.page.evaluate(f"selector => {{ const b = {bar}; return b.top <= 0 && {top} < b.bottom; }}", selector)
    )


def opacity(link: Any) -> str:
    return str(link.evaluate("e => getComputedStyle(e).opacity"))


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
