"""What ``pgconform access`` and ``pgconform bench`` left among the reports, and how report.html shows it."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from .html_words import heading
from .plain import plain

ACCESS, BENCH = "access.json", "bench.json"
COMMANDS = ("select", "insert", "update", "delete")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 520, 200, 44, 28  # pixels


def keep(out: Path, file: str, told: Any) -> None:
    """Write what was found into the directory; of searches the measurement before stays in it. Raises OSError."""
    document = {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "told": told}
    if file == BENCH and (before := _read(out / file)):
        document["before"] = before["told"]
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{file}.{os.getpid()}"
    draft.write_text(json.dumps(document, indent=1), encoding="utf-8")
    draft.replace(out / file)


def read(out: Path) -> dict[str, Any]:
    """Both documents, by file, where they are there; a damaged one counts as none."""
    return {file: found for file in (ACCESS, BENCH) if (found := _read(out / file))}


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"when", "told"} <= found.keys():
            return found
    return {}


def sections(beside: dict[str, Any], contracts: set[str]) -> Iterator[str]:
    """The access matrix, recall and time of searches by tenant, and recall against time with the run before in grey."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # of another version: then there is nothing to show
        if found := list(_access(beside.get(ACCESS, {}), contracts)):
            yield from (heading("access", "Access"), *found)
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        if found := list(_bench(beside.get(BENCH, {}), contracts)):
            yield from (heading("searches", "Searches"), *found)


def _text(value: object) -> str:
    return escape(plain(value))


def _fold(title: str, told: str, opened: bool) -> str:
    begin = "<details open>" if opened else "<details>"
    return f'{begin}<summary>{_text(title)} <span class="tag">{_text(told)}</span></summary>'


def _access(document: dict[str, Any], contracts: set[str]) -> Iterator[str]:
    for matrix in document["told"]["contracts"]:
        if matrix["contract"] not in contracts:
            continue
        cells = {(c["relation"], c["role"], c["command"]): c for c in matrix["permissions"]}
        roles = list(dict.fromkeys(role for _, role, _ in cells))
        bad = sum(c["verdict"] != "agrees" for c in cells.values())
        told = f"{bad} of {len(cells)} not as declared; {document['when']}"
        yield _fold(f"Access of {matrix['contract']}: whose rows each role may touch", told, bool(bad))
        heads = "".join(f'<th colspan="4">{_text(role)}' for role in roles)
        yield f'<table class="grid"><tr><th rowspan="2">relation{heads}</tr><tr>'
        yield "".join(f'<th title="{command}">{command[0]}' for _ in roles for command in COMMANDS) + "</tr>"
        for relation in dict.fromkeys(relation for relation, _, _ in cells):
            row = [cells.get((relation, role, command)) for role in roles for command in COMMANDS]
            yield f"<tr><td>{_text(relation)}{''.join(map(_cell, row))}</tr>"
        yield "</table></details>"


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td>"
    marks = {"agrees": "", "differs": ' class="f"', "unverified": ' class="b"'}
    declared = cell["declared"] or "nothing declared"
    told = f"declared: {declared}; observed: {cell['observed']}; {cell['why'] or ''}"
    shown = "–" if cell["observed"] == "none" else cell["observed"]
    return f'<td{marks[cell["verdict"]]} title="{_text(told)}">{_text(shown)}'


def _bench(document: dict[str, Any], contracts: set[str]) -> Iterator[str]:
    before = {outcome["contract"]: outcome for outcome in document.get("before", ())}
    for outcome in document["told"]:
        name = outcome["contract"]
        if name not in contracts or not outcome["cases"]:
            continue
        bad = {(problem["case"], problem["kind"]) for problem in outcome["problems"]}
        told = f"{len(bad)} problem(s); {document['when']}"
        yield _fold(f"Searches of {name}: recall and time for each tenant", told, bool(bad))
        heads = ("caller", "rows", "found", "recall", "worst", "foreign", "order", "p50 ms", "p95 ms", "before")
        yield f'<table class="grid"><tr>{"".join(f"<th>{head}" for head in heads)}</tr>'
        old = {case["case"]: case for case in before.get(name, {}).get("cases", ())}
        for case in outcome["cases"]:
            yield _row(case, old.get(case["case"]), {kind for where, kind in bad if where == case["case"]})
        yield "</table>"
        for function, points in outcome["curves"].items():
            if points:
                earlier = before.get(name, {}).get("curves", {}).get(function, ())
                yield curve(function, _points(points), _points(earlier))
        yield "</details>"


def _row(case: dict[str, Any], old: dict[str, Any] | None, bad: set[str]) -> str:
    """One tenant's searches; a cell is marked where the benchmark found a problem of its kind."""
    found = f"{case['returned']:.1f} of {case['expected']:.1f}"
    cells = (
        ("rows", found), ("recall", f"{case['recall']:.3f}"), ("recall", f"{case['worst']:.2f}"),
        ("foreign rows", case["foreign"]), ("order", case["unordered"]), ("time", f"{case['p50']:.2f}"),
        ("latency", f"{case['p95']:.2f}"),
    )  # fmt: skip
    shown = "".join(f'<td class="n{" f" if kind in bad else ""}">{_text(value)}' for kind, value in cells)
    before = f"{old['p95']:.2f}" if old else ""
    return f'<tr><td>{_text(case["case"])}<td class="n">{case["rows"]:,}{shown}<td class="n">{before}</tr>'


def _points(points: Any) -> list[tuple[float, float, str]]:
    """Milliseconds of the slowest caller, recall of the worst, and the settings, by time."""
    found = []
    for point in points:
        tried = list(point["tried"].values())
        settings = ", ".join(f"{name} = {value}" for name, value in point["settings"].items())
        slowest = max(tried, key=lambda one: float(one["ratio"]))
        found.append((float(slowest["milliseconds"]), min(float(one["recall"]) for one in tried), settings))
    return sorted(found)


def curve(title: str, now: list[tuple[float, float, str]], before: list[tuple[float, float, str]]) -> str:
    """Recall, 0 to 1, against milliseconds on a logarithmic scale; a dot for each setting, earlier ones in grey."""
    times = [time for time, _, _ in (*now, *before) if time > 0]
    low, high = math.log10(min(times)), math.log10(max(times))
    span = (high - low) or 1.0

    def at(time: float, recall: float) -> tuple[float, float]:
        x = _LEFT + 8 + (_WIDTH - _LEFT - 16) * (math.log10(time) - low) / span
        return x, 8 + (_HEIGHT - _BOTTOM - 8) * (1 - recall)

    parts = []
    for points, kind in ((before, "old"), (now, "new")):
        placed = [(*at(time, recall), f"{what}: recall {recall:.3f}, {time:.2f} ms") for time, recall, what in points]
        if placed:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in placed)
            dots = "".join(_dot(x, y, told) for x, y, told in placed)
            parts.append(f'<g class="{kind}"><path d="M{path}"/>{dots}</g>')
    for exponent, anchor in ((low, "start"), (high, "end")):
        x = at(10**exponent, 0)[0]
        parts.append(f'<text x="{x:.0f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{10**exponent:.2g} ms</text>')
    for recall in (0.0, 0.5, 1.0):
        y = at(10**low, recall)[1]
        parts.append(f'<path d="M{_LEFT} {y:.0f}H{_WIDTH}"/><text x="4" y="{y + 4:.0f}">{recall:.1f}</text>')
    told = _text(f"{title}: recall of the worst caller against the time of the slowest, {len(now)} settings")
    return (
        f'<figure><figcaption class="soft">{told}</figcaption><svg class="curve" role="img" aria-label="{told}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}">{"".join(parts)}</svg></figure>'
    )


def _dot(x: float, y: float, told: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_text(told)}</title></circle>'
