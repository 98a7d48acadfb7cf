"""The seconds left of a run, and how far pictures are apart: against what is known to be so."""

from __future__ import annotations

import math

import pytest
import torch
from sd3_local.pipelines.difference import differences
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.pace import Pace

COMPUTED, REUSED, PAUSE = 2.0, 0.25, 5.0


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(pattern: str, results: int, until: int) -> tuple[Pace, float]:
    """A pace after `until` steps of results whose steps are computed (C) or reused (r), and what is really left."""
    clock = Clock()
    pace = Pace(results, clock)
    total = len(pattern) * results
    costs = [REUSED if letter == "r" else COMPUTED for letter in pattern * results]
    for done in range(1, until + 1):
        clock.now += costs[done - 1]
        if done > 1 and done % len(pattern) == 1:
            clock.now += PAUSE
        pace.step(done, total, (pattern * results)[done - 1] == "r")
    ends = results - (until - 1) // len(pattern)
    return pace, sum(costs[until:]) + PAUSE * ends


def test_nothing_is_said_before_a_step_was_timed() -> None:
    pace, _ = paced("CCCC", 1, 1)
    assert pace.left(4) is None


def test_equal_steps_take_what_they_took() -> None:
    pace, left = paced("C" * 10, 1, 4)
    assert pace.left(10) == pytest.approx(left - PAUSE)  # what decoding takes is not known yet


def test_a_second_result_is_known_by_the_first() -> None:
    pattern = "CCrrCrrrCC"
    for until in (11, 14, 17, 20):
        pace, left = paced(pattern, 2, until)
        assert pace.left(20) == pytest.approx(left), until
        assert pace.reused == (pattern * 2)[:until].count("r")


def test_reused_steps_shorten_what_is_left() -> None:
    fast, slow = paced("CCCrrrCrrrCrrC", 1, 10), paced("C" * 14, 1, 10)
    assert fast[0].left(14) < 0.7 * slow[0].left(14)
    assert fast[0].left(14) == pytest.approx(fast[1] - PAUSE, rel=0.6)


def test_a_step_that_is_evaluated_twice_counts_once() -> None:
    clock = Clock()
    pace = Pace(1, clock)
    for done in (1, 2, 2, 3, 3):
        clock.now += 1.0
        pace.step(done, 8, done > 1)
    assert (pace.done, pace.reused) == (3, 2)


def test_differences_are_those_of_a_known_error() -> None:
    grey = torch.full((2, 8, 4, 3), 0.5)
    other = grey.clone()
    other[0] += 0.1
    first, second = differences(grey, other)
    assert first.psnr == pytest.approx(20, abs=1e-5)
    assert (first.mean, first.largest) == pytest.approx((0.1, 0.1), abs=1e-6)
    assert (second.psnr, second.mean, second.largest) == (math.inf, 0, 0)


def test_the_mean_is_over_all_pixels_and_the_largest_of_one() -> None:
    black = torch.zeros(1, 4, 4, 3)
    dotted = black.clone()
    dotted[0, 1, 2] = 1.0
    (told,) = differences(black, dotted)
    assert told.mean == pytest.approx(1 / 16)
    assert told.largest == 1
    assert told.psnr == pytest.approx(10 * math.log10(16))


def test_the_shorter_batch_says_how_many_are_compared() -> None:
    assert len(differences(torch.zeros(3, 4, 4, 3), torch.zeros(2, 4, 4, 3))) == 2


def test_transparency_is_over_white() -> None:
    clear = torch.zeros(1, 4, 4, 4)
    assert differences(clear, torch.ones(1, 4, 4, 3))[0].psnr == math.inf


def test_other_sizes_are_refused_with_both() -> None:
    with pytest.raises(RequestError, match=r"imagesB are 6 x 4 pixels and imagesA are 8 x 4"):
        differences(torch.zeros(1, 4, 8, 3), torch.zeros(1, 4, 6, 3))
