"""Figures over time: how much they changed, and whether that is as before. Pure; a series is (age in days, value).

A window is judged from the values nearest to its ends, where there are some within a quarter of its length: runs are
not made to the minute, and some are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise
from statistics import linear_regression, median

Series = Sequence[tuple[float, float]]


def near(series: Series, age: float, within: float) -> float | None:
    """The value whose age is nearest to ``age``, and at most ``within`` days away from it."""
    found = min(series, key=lambda point: abs(point[0] - age), default=None)
    return found[1] if found and abs(found[0] - age) <= within else None


def gains(series: Series, now: float, days: float) -> list[float]:
    """How much was gained in the last ``days``, in as many days before, and so on back, while there are values."""
    ends = [now]
    for number in count(1):
        value = near(series, number * days, days / 4)
        if value is None:
            break
        ends.append(value)
    return [later - earlier for later, earlier in pairwise(ends)]


def departs(series: Series, now: float, days: float, factor: float, least: float) -> bool | None:
    """True where the last gain is more than ``factor`` times the median of those before, or less than that part of it,
    and ``least`` away from it; None where there is nothing to compare with. No gain at all is ``silent``'s."""
    last, *before = gains(series, now, days) or [0.0]
    if not before:
        return None
    usual = median(before)
    if abs(last - usual) < max(least, 1) or not last:
        return False
    return last > factor * max(usual, 0) or last * factor < usual


def silent(series: Series, now: float, days: float) -> bool | None:
    """True where the value is what it was ``days`` ago and all the time since, though it rose in as many days before;
    None where that is not known."""
    start, before = near(series, days, days / 4), near(series, 2 * days, days / 4)
    if start is None or before is None:
        return None
    since = [value for age, value in series if age <= days]
    return start > before and all(value == start for value in [*since, now])


def days_to(series: Series, now: float, limit: float, days: float) -> float | None:
    """In how many days the value reaches ``limit`` if it goes on as in the last ``days`` (least squares); infinite
    where it does not rise; None where the series is shorter than a quarter of that."""
    points = [(-age, value) for age, value in series if age <= days * 1.25] + [(0.0, now)]
    if len(points) < 3 or points[-1][0] - min(points)[0] < days / 4:
        return None
    slope = linear_regression(*map(list, zip(*points, strict=True))).slope
    if now >= limit:
        return 0.0
    return (limit - now) / slope if slope > 0 else float("inf")


def spark(values: Sequence[float]) -> str:
    """The values as a line of bars, from the lowest to the highest."""
    low, high = min(values), max(values)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / (high - low)) if high > low else 0] for v in values)
