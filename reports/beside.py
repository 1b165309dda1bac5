"""What ``pgconform access`` and ``pgconform bench`` left among the reports, and how report.html shows it."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from .curves import bench_figure, scale_figure
from .html_words import heading
from .plain import plain

ACCESS, BENCH, SCALE = "access.json", "bench.json", "scale.json"
COMMANDS = ("select", "insert", "update", "delete")


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
    """The documents, by file, where they are there; a damaged one counts as none."""
    found: dict[str, Any] = {file: document for file in (ACCESS, BENCH) if (document := _read(out / file))}
    with suppress(OSError, ValueError):
        found[SCALE] = json.loads((out / SCALE).read_text(encoding="utf-8"))
    return found


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"when", "told"} <= found.keys():
            return found
    return {}


def sections(beside: dict[str, Any], contracts: set[str]) -> Iterator[str]:
    """The access matrix, recall and time of searches by tenant, recall against time with the run before in grey, and
    time against number of rows."""
    access = _whole(_access(beside.get(ACCESS, {}), contracts))
    searches = _whole(_bench(beside.get(BENCH, {}), contracts)) + _whole(_scale(beside.get(SCALE, ())))
    if access:
        yield from (heading("access", "Access"), *access)
    if searches:
        yield from (heading("searches", "Searches"), *searches)


def _whole(part: Iterator[str]) -> list[str]:
    """All of it; of another version's document nothing."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        return list(part)
    return []


def _scale(points: Sequence[dict[str, Any]]) -> Iterator[str]:
    figure = scale_figure(points)
    yield f"{_fold('Searches as the table grows', f'{len(points)} measurements', False)}{figure}</details>"


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
        heads = ("caller", "rows", "found", "recall", "worst", "foreign", "order", "cold ms", "p50 ms", "p95 ms",
                 "before", "searches/s", "scans")  # fmt: skip
        yield f'<table class="grid"><tr>{"".join(f"<th>{head}" for head in heads)}</tr>'
        old = {case["case"]: case for case in before.get(name, {}).get("cases", ())}
        for case in outcome["cases"]:
            yield _row(case, old.get(case["case"]), {kind for where, kind in bad if where == case["case"]})
        yield "</table>"
        for function, points in outcome["curves"].items():
            if points:
                earlier = before.get(name, {}).get("curves", {}).get(function, ())
                yield bench_figure(function, points, earlier)
        yield "</details>"


def _row(case: dict[str, Any], old: dict[str, Any] | None, bad: set[str]) -> str:
    """One tenant's searches; a cell is marked where the benchmark found a problem of its kind."""
    found = f"{case['returned']:.1f} of {case['expected']:.1f}"
    cells = (
        ("rows", found), ("recall", f"{case['recall']:.3f}"), ("recall", f"{case['worst']:.2f}"),
        ("foreign rows", case["foreign"]), ("order", case["unordered"]), ("cold", f"{case['cold']:.1f}"),
        ("time", f"{case['p50']:.2f}"), ("latency", f"{case['p95']:.2f}"),
    )  # fmt: skip
    shown = "".join(f'<td class="n{" f" if kind in bad else ""}">{_text(value)}' for kind, value in cells)
    before = f"{old['p95']:.2f}" if old else ""
    loads = ", ".join(f"{load['rate']:.0f} by {clients}" for clients, load in case["clients"].items())
    return (
        f'<tr><td>{_text(case["case"])}<td class="n">{case["rows"]:,}{shown}<td class="n">{before}'
        f"<td>{_text(loads)}<td{' class=f' if 'index' in bad else ''}>{_text(case['plan'])}</tr>"
    )
