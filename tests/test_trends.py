"""Judging figures over time, from numbers alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgconform.trends import days_to, departs, gains, near, silent, spark

MONTHS = [(90.0, 100.0), (60.0, 200.0), (30.0, 300.0)]


def test_a_value_is_taken_from_near_by_or_not_at_all() -> None:
    assert near([(29.0, 1.0), (36.0, 2.0)], 30, 7.5) == 1.0
    assert near([(22.4, 1.0), (38.0, 2.0)], 30, 7.5) is None
    assert near([], 30, 7.5) is None


def test_gains_go_back_as_far_as_the_history_does_without_a_gap() -> None:
    assert gains(MONTHS, 400, 30) == [100, 100, 100]
    assert gains(MONTHS[:1], 400, 30) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [(400, False), (599, False), (600, False), (601, True), (333, True), (334, False), (300, False)],
)
def test_a_gain_departs_beyond_the_factor_and_no_gain_is_not_its_business(now: float, expected: bool) -> None:
    assert departs(MONTHS, now, 30, 3, 0) is expected


def test_small_differences_do_not_depart() -> None:
    assert departs(MONTHS, 601, 30, 3, 200) is True
    assert departs(MONTHS, 601, 30, 3, 202) is False
    assert departs(MONTHS[2:], 601, 30, 3, 0) is None  # one month is nothing to compare with


def test_silence_is_told_from_never_having_spoken() -> None:
    assert silent([(28, 5.0), (14, 9.0), (7, 9.0)], 9, 14) is True
    assert silent([(28, 5.0), (14, 9.0), (7, 9.0)], 10, 14) is False
    assert silent([(28, 9.0), (14, 9.0), (7, 9.0)], 9, 14) is False
    assert silent([(28, 5.0), (14, 9.0), (7, 12.0)], 9, 14) is False  # came, and was archived
    assert silent([(14, 9.0)], 9, 14) is None


def test_the_day_when_it_is_full() -> None:
    assert days_to([(30, 10.0), (20, 20.0), (10, 30.0)], 40, 100, 30) == pytest.approx(60)
    assert days_to([(30, 40.0), (20, 30.0), (10, 20.0)], 10, 100, 30) == math.inf
    assert days_to([(30, 40.0), (20, 70.0)], 100, 100, 30) == 0
    assert days_to([(1, 40.0)], 50, 100, 30) is None
    assert days_to([(4, 40.0), (2, 45.0)], 50, 100, 30) is None  # too short to go by


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_a_line_of_bars_has_a_bar_for_each_value_and_the_highest_for_the_highest(values: list[float]) -> None:
    bars = spark(values)
    assert len(bars) == len(values)
    assert bars[values.index(max(values))] == max(bars)
