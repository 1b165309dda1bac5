"""Small pictures for the report: SVG by hand, each with what it shows in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_CELL, _HEIGHT, _WIDTH = 5, 12, 120  # pixels


def strip(verdicts: Sequence[str]) -> str:
    """A cell for each run, oldest first; '' stands for a run that did not ask."""
    counted = Counter(filter(None, verdicts))
    told = ", ".join(f"{number} {verdict}" for verdict, number in counted.most_common())
    cells = "".join(
        f'<rect class="{verdict[:1]}" x="{number * _CELL}" width="{_CELL - 1}" height="{_HEIGHT}"/>'
        for number, verdict in enumerate(verdicts)
    )
    size = f'width="{len(verdicts) * _CELL}" height="{_HEIGHT}"'
    return f'<svg class="strip" role="img" aria-label="last runs: {told}" {size}>{cells}</svg>'


def line(values: Sequence[float]) -> str:
    """The values from left to right; the last one has a dot. '' for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span, step = (high - low) or 1.0, (_WIDTH - 8) / (len(values) - 1)
    points = [(4 + n * step, 4 + (_HEIGHT + 6) * (1 - (value - low) / span)) for n, value in enumerate(values)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    x, y = points[-1]
    told = f"{len(values)} runs, from {low:,.6g} to {high:,.6g}"
    return (
        f'<svg class="line" role="img" aria-label="{told}" width="{_WIDTH}" height="{_HEIGHT + 14}">'
        f'<path d="M{path}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )
