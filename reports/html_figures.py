"""What was measured, in report.html: each figure beside the run before, with its trend."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from pgconform.history import SEARCHES
from pgconform.model import Figure

from .html_words import heading, text
from .plots import line

if TYPE_CHECKING:
    from pgconform.results import Run

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def amount(value: float, unit: str = "") -> str:
    """The value as people read it: bytes in the units of pg_size_pretty, shares in percent."""
    if unit == "bytes":
        step = 0
        while abs(value) >= 1023.5 and step < len(_SIZES) - 1:
            value, step = value / 1024, step + 1
        return f"{value:.0f} {_SIZES[step]}" if step == 0 or value >= 100 else f"{value:.1f} {_SIZES[step]}"
    if unit == "share":
        return f"{value * 100:.4g} %"
    told = f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:,.6g}"
    return f"{told} {unit}".rstrip()


def figures(run: Run) -> Iterator[str]:
    """Every figure of the run, and those of searches, which a benchmark measured and not the run."""
    rows = [(result.contract, figure) for result in run.results for figure in result.figures]
    for contract, past in run.past.items():
        named = [(name, values) for name, values in past.figures.items() if name.startswith(SEARCHES)]
        rows += [(contract, Figure(name, values[-1][1])) for name, values in named]
    if rows:
        yield f"{heading('measured', 'Measured')}<details><summary>Figures, the run before in grey"
        yield f' <span class="tag">{len(rows)}</span></summary><div class="wide"><table>'
        yield "<tr><th>figure<th>now<th>before<th>trend</tr>"
        for contract, figure in sorted(rows, key=lambda row: (row[0], row[1].name)):
            earlier = run.past[contract].figures.get(figure.name, []) if contract in run.past else []
            yield _row(figure, [value for _, value in earlier])
        yield "</table></div></details>"


def _row(figure: Figure, earlier: list[float]) -> str:
    values = earlier[:-1] if figure.name.startswith(SEARCHES) else earlier
    shown = partial(amount, unit=figure.unit)
    before = shown(values[-1]) if values else ""
    return (
        f'<tr><td>{text(figure.name)}<td class="n">{text(shown(figure.value))}'
        f'<td class="n old">{text(before)}<td>{line([*values, figure.value], shown)}</tr>'
    )
