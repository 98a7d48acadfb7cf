"""Which step an evaluation belongs to, and what makes a cache forget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from sd3_local.caching import CacheOptions, CacheRun
from sd3_local.pipelines.samplers import SCHEDULERS, sigmas

from tests.toy_forward import Toy, evenly

CPU = torch.device("cpu")
TWICE = ("Heun", "Heun Karras", "KDPM2DiscreteScheduler", "DPM++", "DPM++ SDE", "KDPM2AncestralDiscreteScheduler")


def still(sigma: float, **shape) -> Toy:
    return Toy(sigma, lambda sigma: 1.0, lambda sigma: 2.0, **shape)


def run_of(steps: int, limit: float = math.inf, most: int = 2, window: range | None = None, **facts) -> CacheRun:
    options = CacheOptions("fb", limit, range(steps) if window is None else window, most)
    return CacheRun(options, evenly(steps), CPU, **facts)


def actions(run: CacheRun) -> list[tuple[int, bool, str]]:
    return [(row.step, row.corrects, row.action) for row in run.trace.rows]


class Sampled:
    """A scheduler's sampler under a cache; the latent is the image stream itself."""

    def __init__(self, name: str, steps: int, limit: float = math.inf, most: int = 2):
        self.scheduler = SCHEDULERS[name]
        self.sigmas = sigmas(self.scheduler.schedule, steps)
        options = CacheOptions("fb", limit, range(steps), most)
        self.run = CacheRun(
            options,
            self.sigmas,
            CPU,
            evaluations=self.scheduler.evaluations,
            stochastic=self.scheduler.stochastic,
        )
        self.asked: list[float] = []
        self.scheduler.sampler(self._velocity, torch.zeros(1, 32, 8), self.sigmas, lambda: torch.zeros(1, 32, 8))

    def _velocity(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.asked.append(sigma)
        # A second evaluation's tail is the number of the evaluation, so that a wrong slot would show.
        count = len(self.asked)
        (output,) = self.run.evaluate(sigma, {"all": Toy(sigma, lambda sigma: 1.0, lambda sigma: float(count))})
        return 1e-3 * output


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_s_evaluations_fall_into_its_steps(name: str) -> None:
    sampled = Sampled(name, 9)
    steps = sampled.run.trace.steps
    assert [row.step for row in steps] == list(range(9))
    assert [row.sigma for row in steps] == list(sampled.sigmas[:-1])
    assert len(sampled.run.trace.rows) == len(sampled.asked)
    assert not {"jump", "change", "shape"} & set(sampled.run.trace.reasons())


@pytest.mark.parametrize("name", TWICE)
def test_a_second_evaluation_follows_the_first_and_counts_as_none(name: str) -> None:
    sampled = Sampled(name, 9)
    rows = sampled.run.trace.rows
    seconds = [(first, second) for first, second in pairwise(rows) if second.corrects]
    assert len(seconds) in (8, 9)
    for first, second in seconds:
        assert second.step == first.step
        assert second.action == first.action
    assert sampled.run.trace.compact == "CrrC.rrCr.C"
    assert sampled.run.trace.longest == 2


def test_a_second_evaluation_has_a_tail_of_its_own() -> None:
    """Reusing the first one's would make Heun's method Euler's."""
    run = run_of(6, evaluations=2)
    first, second = 5.0, 9.0
    outputs = []
    start, middle, end = evenly(6)[:3]
    for sigma, tail in ((start, first), (middle, second), (middle, first), (end, second)):
        made = Toy(sigma, lambda sigma: 1.0, lambda sigma, tail=tail: tail)
        outputs += run.evaluate(sigma, {"all": made})
    assert actions(run) == [(0, False, "computed"), (0, True, "computed"), (1, False, "reused"), (1, True, "reused")]
    assert [output.mean().item() for output in outputs] == [16.0, 20.0, 16.0, 20.0]


@pytest.mark.parametrize("name", ["Euler a", "DPM++ 2M SDE", "Heun", "LCM"])
def test_noise_and_second_evaluations_are_not_forecast(name: str) -> None:
    assert not Sampled(name, 9).run._forecasts
    assert Sampled("Default", 9).run._forecasts


def steady(run: CacheRun, steps: int, upto: int, signature: object = None, **shape) -> None:
    for sigma in evenly(steps)[:upto]:
        run.evaluate(sigma, {"all": still(sigma, **shape)}, signature)


def test_another_signature_computes_and_forgets() -> None:
    run = run_of(12, most=5)
    steady(run, 12, 3, signature="early")
    (output,) = run.evaluate(9 / 12, {"all": Toy(9 / 12, lambda sigma: 1.0, lambda sigma: 7.0)}, "late")
    run.evaluate(8 / 12, {"all": still(8 / 12)}, "late")
    assert [(row.action, row.reason) for row in run.trace.rows[2:]] == [
        ("reused", "threshold"),
        ("computed", "change"),
        ("reused", "threshold"),
    ]
    assert output.mean().item() == 18.0


@pytest.mark.parametrize("shape", [{"samples": 2}, {"tokens": 64}])
def test_another_batch_or_size_computes(shape: Mapping[str, int]) -> None:
    run = run_of(12, most=5)
    steady(run, 12, 3)
    run.evaluate(9 / 12, {"all": still(9 / 12, **shape)})
    assert (run.trace.rows[-1].action, run.trace.rows[-1].reason) == ("computed", "shape")


def test_another_role_computes() -> None:
    """The negative prompt's residual is not the positive one's."""
    run = run_of(12, most=5)
    for sigma in evenly(12)[:3]:
        run.evaluate(sigma, {"positive": still(sigma)})
    run.evaluate(9 / 12, {"negative": still(9 / 12)})
    assert (run.trace.rows[-1].action, run.trace.rows[-1].reason) == ("computed", "shape")


@pytest.mark.parametrize("next_step", [0, 2, 6])
def test_a_sigma_that_rises_or_leaps_computes(next_step: int) -> None:
    run = run_of(12, most=5)
    steady(run, 12, 4)
    sigma = evenly(12)[next_step]
    run.evaluate(sigma, {"all": still(sigma)})
    assert (run.trace.rows[-1].action, run.trace.rows[-1].reason) == ("computed", "jump")


def test_a_run_that_broke_off_leaves_nothing_to_the_next() -> None:
    class Cancelled(Exception):
        pass

    class Broken(Toy):
        def rest(self) -> torch.Tensor:
            raise Cancelled

    run = run_of(12)
    steady(run, 12, 3)
    with pytest.raises(Cancelled):
        run.evaluate(9 / 12, {"all": Broken(9 / 12, lambda sigma: 1.0, lambda sigma: 2.0)})
    run.close()
    after = run_of(12)
    steady(after, 12, 12)
    fresh = run_of(12)
    steady(fresh, 12, 12)
    assert after.trace.compact == fresh.trace.compact
