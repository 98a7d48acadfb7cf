"""Sigma schedules by their properties and by values worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.samplers import SCHEDULERS, sigmas
from sd3_local.pipelines.samplers.schedules import SCHEDULES

LAST = 3 * (0.003 / 1.002) / (1 + 2 * (0.003 / 1.002))
"""1/1000 shifted by 3 twice over, about 0.0089."""


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(deadline=None)
@given(steps=st.integers(1, 1500), shift=st.floats(0.5, 12))
def test_sigmas_fall_strictly_from_one_to_zero(schedule: str, steps: int, shift: float):
    levels = sigmas(schedule, steps, shift)
    assert len(levels) == steps + 1
    assert all(type(level) is float for level in levels)
    assert levels[0] == 1.0
    assert levels[-1] == 0.0
    assert all(above > below for above, below in pairwise(levels))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_one_step_goes_all_the_way(schedule: str, shift: float):
    assert sigmas(schedule, 1, shift) == (1.0, 0.0)


@pytest.mark.parametrize("schedule", ["default", "karras", "exponential", "beta"])
@pytest.mark.parametrize("steps", [2, 28, 1000])
def test_the_reference_list_and_the_curves_share_their_last_sigma(schedule: str, steps: int):
    assert sigmas(schedule, steps)[-2] == pytest.approx(LAST, rel=1e-12)


def test_simple_by_hand():
    assert sigmas("simple", 4) == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0), abs=1e-15)


def test_simple_without_shift_is_even():
    assert sigmas("simple", 5, 1.0) == pytest.approx((1.0, 0.8, 0.6, 0.4, 0.2, 0.0), abs=1e-15)


def test_simple_goes_on_where_the_table_ends():
    assert sigmas("simple", 1000)[-2] == pytest.approx(3 * 0.001 / 1.002)
    assert sigmas("simple", 2000)[-2] == pytest.approx(3 * 0.0005 / 1.001)


def test_default_by_hand():
    middle = (1 + 0.003 / 1.002) / 2
    assert sigmas("default", 3) == pytest.approx((1.0, 3 * middle / (1 + 2 * middle), LAST, 0.0), abs=1e-12)


def test_karras_by_hand():
    assert sigmas("karras", 3)[1] == pytest.approx(((1 + LAST ** (1 / 7)) / 2) ** 7)


def test_exponential_by_hand():
    assert sigmas("exponential", 3)[1] == pytest.approx(LAST**0.5)


def test_beta_is_symmetric_about_its_middle():
    levels = sigmas("beta", 9)[:-1]
    assert all(high + low == pytest.approx(1 + LAST) for high, low in zip(levels, reversed(levels), strict=True))
    gaps = [above - below for above, below in pairwise(levels)]
    assert gaps[0] < gaps[len(gaps) // 2] > gaps[-1]


def test_every_scheduler_names_a_schedule_there_is():
    assert {entry.schedule for entry in SCHEDULERS.values()} == set(SCHEDULES)
