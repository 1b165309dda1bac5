"""Small pictures for the report: SVG by hand, each with what it shows in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .past import packed

STRIP = 30  # runs that a strip shows, this one among them
_HEIGHT, _WIDTH = 18, 120  # pixels


def strip(verdicts: Sequence[str]) -> str:
    """The attribute of a case from which the page's script draws a strip, a cell for each run, oldest first, and says
    it in words, when it comes into sight: thousands of them stay small. '' stands for a run that did not ask."""
    return f" data-h={packed(verdicts[-STRIP:])}"


def line(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The values from left to right, the last one with a dot, the one before with a grey dot; '' for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span, step = (high - low) or 1.0, (_WIDTH - 8) / (len(values) - 1)
    points = [(4 + n * step, 4 + _HEIGHT * (1 - (value - low) / span)) for n, value in enumerate(values)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    (was, before), (x, y) = points[-2:]
    told = escape(f"{len(values)} runs, from {shown(low)} to {shown(high)}")
    return (
        f'<svg class="line" role="img" aria-label="{told}" width="{_WIDTH}" height="{_HEIGHT + 8}">'
        f"<title>{told}</title>"
        f'<path d="M{path}"/><circle class="old" cx="{was:.1f}" cy="{before:.1f}" r="2.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )
