"""Curves of searches, as SVG: recall against time for each caller, and time against the number of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .plain import plain

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 240, 64, 28, 10  # pixels
KINDS = 5  # of colours and marks; further series begin again


@dataclass(frozen=True, slots=True)
class Dot:
    """A measurement: where it is, what it says when pointed at, and whether it is drawn hollow."""

    x: float
    y: float
    told: str
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Dots under one name, and those of them that a line goes through."""

    name: str
    dots: list[Dot]
    line: list[Dot]
    old: bool = False


def bench_figure(function: str, now: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> str:
    """Recall against milliseconds, on a logarithmic scale, a series for each caller and a dot for each setting of the
    index; the line goes through the settings than which no faster one finds as much. The run before is grey."""
    found = _callers(function, before, True) + _callers(function, now, False)
    times = [dot.x for series in found for dot in series.dots]
    told = f"{function}: recall against milliseconds of one search, {len(now)} settings of its index"
    earlier = "; grey: the run before" if before else ""
    x, y = _log(times, _LEFT + 8, _WIDTH - 12), _linear(0.0, 1.0)
    return _figure(
        told + earlier, found, x, y, _ends(times, "ms"), [(value, f"{value:.1f}") for value in (0.0, 0.5, 1.0)]
    )


def scale_figure(points: Sequence[dict[str, Any]]) -> str:
    """Milliseconds against rows, both on logarithmic scales, a series for each method; a hollow mark is a sequential
    scan, where the planner left the index."""
    found = []
    for method in dict.fromkeys(str(point["method"]) for point in points):
        dots = [
            Dot(float(p["rows"]), float(p["ms"]), f"{method}, {int(p['rows']):,} rows: {float(p['ms']):.2f} ms,"
                f" {p['scan']} scan, recall {float(p['recall']):.3f}", p["scan"] != "index")
            for p in sorted(points, key=lambda p: float(p["rows"])) if str(p["method"]) == method
        ]  # fmt: skip
        found.append(Series(method, dots, dots))
    rows, times = ([d.x for s in found for d in s.dots], [d.y for s in found for d in s.dots])
    x, y = _log(rows, _LEFT + 8, _WIDTH - 12), _log(times, _HEIGHT - _BOTTOM - 6, _TOP + 6)
    told = "milliseconds of one search against rows of the table; hollow: a sequential scan"
    return _figure(told, found, x, y, [(value, f"{value:,.0f} rows") for value in {min(rows): 0, max(rows): 0}],
                   _ends(times, "ms"))  # fmt: skip


def _callers(function: str, points: Sequence[dict[str, Any]], old: bool) -> list[Series]:
    found = []
    for case in dict.fromkeys(case for point in points for case in point["tried"]):
        dots = []
        for point in points:
            if tried := point["tried"].get(case):
                settings = ", ".join(f"{name} = {value}" for name, value in point["settings"].items())
                time, recall = float(tried["milliseconds"]), float(tried["recall"])
                dots.append(Dot(time, recall, f"{case}, {settings}: recall {recall:.3f}, {time:.2f} ms"))
        found.append(Series(case.removeprefix(f"{function}, "), dots, _frontier(dots), old))
    return found


def _frontier(dots: Iterable[Dot]) -> list[Dot]:
    """Those that find more than any faster one."""
    found: list[Dot] = []
    for dot in sorted(dots, key=lambda one: (one.x, -one.y)):
        if not found or dot.y > found[-1].y:
            found.append(dot)
    return found


Scale = Callable[[float], float]


def _log(values: Sequence[float], start: float, end: float) -> Scale:
    """From the least to the greatest of the values, onto the pixels from start to end. Raises ValueError."""
    low, high = (math.log10(max(value, 1e-6)) for value in (min(values), max(values)))
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (math.log10(max(value, 1e-6)) - low) / span


def _linear(low: float, high: float) -> Scale:
    top, bottom = _TOP + 6, _HEIGHT - _BOTTOM - 6
    return lambda value: bottom + (top - bottom) * (value - low) / (high - low)


def _ends(values: Sequence[float], unit: str) -> list[tuple[float, str]]:
    return [(value, f"{value:.2g} {unit}") for value in dict.fromkeys((min(values), max(values)))]


def _figure(
    told: str, found: Sequence[Series], x: Scale, y: Scale, across: list[tuple[float, str]], up: list[tuple[float, str]]
) -> str:
    names = list(dict.fromkeys(series.name for series in found))
    parts = [_axes(x, y, across, up)]
    for series in found:
        kind = names.index(series.name) % KINDS
        path = "L".join(f"{x(dot.x):.1f} {y(dot.y):.1f}" for dot in series.line)
        marks = "".join(_mark(kind, x(dot.x), y(dot.y), dot) for dot in series.dots)
        parts.append(f'<g class="{"old" if series.old else f"new s{kind}"}"><path d="M{path}"/>{marks}</g>')
    legend = "".join(
        f'<span class="key"><svg class="curve" width="14" height="14" aria-hidden="true"><g class="new s{n % KINDS}">'
        f"{_shape(n % KINDS, 7, 7)}/></g></svg> {_text(name)}</span> "
        for n, name in enumerate(names)
    )
    return (
        f'<figure><figcaption class="soft">{_text(told)}<br>{legend}</figcaption><svg class="curve" role="img"'
        f' aria-label="{_text(told)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}">{"".join(parts)}</svg></figure>'
    )


def _axes(x: Scale, y: Scale, across: list[tuple[float, str]], up: list[tuple[float, str]]) -> str:
    parts = []
    for value, name in up:
        at = y(value)
        parts.append(f'<path d="M{_LEFT} {at:.0f}H{_WIDTH}"/><text x="4" y="{at + 4:.0f}">{_text(name)}</text>')
    for n, (value, name) in enumerate(across):
        anchor = "end" if n else "start"
        parts.append(f'<text x="{x(value):.0f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{_text(name)}</text>')
    return "".join(parts)


def _mark(kind: int, x: float, y: float, dot: Dot) -> str:
    return f"{_shape(kind, x, y, dot.hollow)}><title>{_text(dot.told)}</title></{'path' if kind else 'circle'}>"


def _shape(kind: int, x: float, y: float, hollow: bool = False) -> str:
    """The beginning of a mark: series differ in shape as well as in colour."""
    outlines = ("", "m-4 -4h8v8h-8z", "m0 -5l5 5l-5 5l-5 -5z", "m0 -5l5 9h-10z", "m0 5l5 -9h-10z")
    named = f'class="mark{" hollow" if hollow else ""}"'
    if not kind:
        return f'<circle {named} cx="{x:.1f}" cy="{y:.1f}" r="4"'
    return f'<path {named} d="M{x:.1f} {y:.1f}{outlines[kind]}"'


def _text(value: object) -> str:
    return escape(plain(value))
