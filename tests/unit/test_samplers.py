"""Every scheduler name on flows with a known answer: it converges, with its order, from any start."""

from __future__ import annotations

import functools
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.samplers import SCHEDULERS, NoiseStream, Scheduler, scheduler, sigmas
from sd3_local.pipelines.samplers.consistency import TCD_GAMMA
from sd3_local.pipelines.samplers.dpmpp import _integrated_x0
from torch import Tensor

from tests.flows import GaussianFlow, MixtureFlow, no_noise, smooth_sigmas

PARAMETERS = json.loads((Path(__file__).parent.parent / "data" / "parameters.json").read_text(encoding="utf-8"))
NAMES = next(entry["enum"] for entry in PARAMETERS["parameters"] if entry["path"] == "scheduler")

ALL = list(SCHEDULERS.values())
SOLVERS = list({entry.sampler: entry for entry in reversed(ALL)}.values())
"""One name of each sampler, the first."""
DETERMINISTIC = [entry for entry in ALL if not entry.stochastic]
STOCHASTIC = [entry for entry in ALL if entry.stochastic and entry.order > 0]
CONSISTENCY = [entry for entry in ALL if entry.order == 0]


def each(entries: list[Scheduler]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


def gaussian() -> GaussianFlow:
    return GaussianFlow(torch.linspace(-1, 1, 16), torch.linspace(0.2, 1.5, 16))


def scores(rows: int = 32) -> Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def draws(entry: Scheduler, steps: int) -> int:
    """How often a stochastic sampler draws in `steps` steps that end at 0: DPM++ SDE twice a step, none in the last."""
    return (steps - 1) * (2 if entry.sampler.__name__ == "dpmpp_sde" else 1)


def slope(steps: list[int], errors: list[float]) -> float:
    """The power of 1 / steps with which the errors fall, by least squares."""
    x = [math.log(1 / count) for count in steps]
    y = [math.log(error) for error in errors]
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


@functools.cache
def mixture_reference() -> tuple[Tensor, Tensor]:
    """Starts at sigma 1 and where the mixture's ODE takes them, to 1e-5, by the midpoint rule."""
    start = torch.special.ndtri((torch.arange(64, dtype=torch.float64) + 0.5) / 64)
    return start, SCHEDULERS["KDPM2DiscreteScheduler"].sampler(MixtureFlow(), start, sigmas("simple", 1500), no_noise)


def test_every_name_of_the_contract_but_one_runs():
    assert len(NAMES) == 75
    assert set(SCHEDULERS) == set(NAMES) - {"DPMSolverMultistepInverse"}
    assert all(name == entry.name for name, entry in SCHEDULERS.items())


def test_no_name_means_default():
    assert scheduler(None) is SCHEDULERS["Default"]


def test_the_inverse_is_refused_with_its_reason():
    with pytest.raises(RequestError, match="from a picture to noise") as caught:
        scheduler("DPMSolverMultistepInverse")
    fault = caught.value.faults[0]
    assert (fault.code, fault.parameter) == ("unsupportedScheduler", "scheduler")
    assert set(fault.limits["allowedValues"]) == set(SCHEDULERS)


@pytest.mark.parametrize("name", ["", "euler", "Euler ", "DPM++ 4M", "x" * 100_000])
def test_an_unknown_name_is_refused_with_what_is_allowed(name: str):
    with pytest.raises(RequestError) as caught:
        scheduler(name)
    fault = caught.value.faults[0]
    assert (fault.code, fault.parameter) == ("invalidScheduler", "scheduler")
    assert set(fault.limits["allowedValues"]) == set(SCHEDULERS)
    assert len(fault.message) < 300


@pytest.mark.parametrize("curve", ["Karras", "Exponential", "Beta"])
def test_a_name_with_a_curve_runs_on_it(curve: str):
    named = [entry for entry in ALL if entry.name.endswith(f" {curve}")]
    assert named
    assert {entry.schedule for entry in named} == {curve.lower()}


def test_notices_are_sentences_that_name_their_scheduler():
    for entry in ALL:
        if entry.notice:
            assert entry.name in entry.notice
            assert entry.notice.endswith(".") and "{" not in entry.notice
    assert all("distilled" in entry.notice for entry in CONSISTENCY)
    assert all("EDM" in SCHEDULERS[name].notice for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"))


@each([entry for entry in SOLVERS if not entry.stochastic])
def test_the_error_falls_with_the_stated_order(entry: Scheduler):
    steps = [32, 64, 128, 256]
    flow = gaussian()
    errors = [flow.error(entry.sampler, smooth_sigmas(count), scores()) for count in steps]
    assert slope(steps, errors) > entry.order - 0.2, errors


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_the_published_third_order_formula_integrates_half_the_curvature(rate: float):
    """Against the integral of f0 + f' t + f[0,1,2] t^2 / 2 by quadrature; the exact polynomial has no / 2."""
    times, values, stop = (0.3, -0.1, -0.8), (1.7, 0.9, -2.0), 1.0
    step = stop - times[0]
    slope, earlier = ((values[i] - values[i + 1]) / (times[i] - times[i + 1]) for i in range(2))
    curvature = (slope - earlier) / (times[0] - times[2])
    derivative = slope + curvature * (times[0] - times[1])
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 * step
    polynomial = values[0] + derivative * t + curvature * t**2 / 2
    expected = float((rate * torch.exp(-rate * (step - t)) * polynomial).mean() * step)
    history = [(time, torch.tensor(value, dtype=torch.float64)) for time, value in zip(times, values, strict=True)]
    assert float(_integrated_x0(history, stop, rate)) == pytest.approx(expected, rel=1e-8)


@each(DETERMINISTIC)
def test_deterministic_names_converge_on_their_own_schedule(entry: Scheduler):
    flow = gaussian()
    steps = [16, 32, 64, 128]
    errors = [flow.error(entry.sampler, sigmas(entry.schedule, count), scores()) for count in steps]
    # The schedules have steps that do not shrink in log-SNR, so solvers of any order end up between first and second.
    assert slope(steps, errors) > 0.9, errors
    assert errors[-1] < (0.02 if entry.order == 1 else 0.0025), errors


@each(DETERMINISTIC)
def test_more_than_first_order_pays_off_at_28_steps(entry: Scheduler):
    flow = gaussian()
    error = flow.error(entry.sampler, sigmas(entry.schedule, 28), scores())
    euler = flow.error(SCHEDULERS["Euler"].sampler, sigmas(entry.schedule, 28), scores())
    assert error == euler if entry.order == 1 else error < euler / 2


@each([entry for entry in SOLVERS if not entry.stochastic])
def test_a_flow_with_three_modes_is_solved_too(entry: Scheduler):
    start, reference = mixture_reference()
    result = entry.sampler(MixtureFlow(), start, sigmas(entry.schedule, 200), no_noise)
    assert float((result - reference).abs().mean()) < (0.01 if entry.order == 1 else 0.002)


@each(STOCHASTIC)
def test_stochastic_names_reach_the_mean_and_the_spread(entry: Scheduler):
    flow = gaussian()
    off_mean, off_spread = [], []
    for steps in (8, 32, 128):
        mean, spread = flow.distribution(entry.sampler, sigmas(entry.schedule, steps), draws(entry, steps))
        off_mean.append(float((mean - flow.mean).abs().max()))
        off_spread.append(float((spread / flow.deviation - 1).abs().mean()))
    assert off_mean[-1] < 1e-9
    assert off_spread[2] < off_spread[1] < off_spread[0], off_spread
    assert off_spread[2] < (0.05 if entry.evaluations == 1 else 0.01), off_spread


@each(CONSISTENCY)
def test_consistency_samplers_do_not_reach_the_spread_and_say_so(entry: Scheduler):
    flow = gaussian()
    mean, spread = flow.distribution(entry.sampler, sigmas(entry.schedule, 256), 255)
    assert torch.allclose(mean, flow.mean)
    assert float((spread / flow.deviation).mean()) < 0.9
    assert entry.notice


@pytest.mark.parametrize("name", ["LCM", "LCMScheduler"])
def test_lcm_noises_its_prediction_anew_at_every_step(name: str):
    flow, levels = gaussian(), sigmas("simple", 4)
    stream = NoiseStream([5], (2, 16))
    expected, noise = stream.initial.double(), NoiseStream([5], (2, 16))
    result = SCHEDULERS[name].sampler(flow, noise.initial.double(), levels, lambda: noise().double())
    for sigma, sigma_next in pairwise(levels):
        expected = expected - sigma * flow(expected, sigma)
        if sigma_next > 0:
            expected = (1 - sigma_next) * expected + sigma_next * stream().double()
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)


def test_tcd_goes_below_its_target_and_returns_by_noise():
    """With a straight flow, whose x0 and noise are known, a step's shares of old and new noise are known too."""
    x0, eps = torch.full((1, 4), 2.0, dtype=torch.float64), torch.full((1, 4), 1.0, dtype=torch.float64)
    result = SCHEDULERS["TCDScheduler"].sampler(
        lambda x, sigma: eps - x0, eps, (1.0, 0.5), lambda: torch.zeros_like(x0)
    )
    below = (1 - TCD_GAMMA) * 0.5
    scale = 0.5 / (1 - below)
    assert torch.allclose(result, scale * ((1 - below) * x0 + below * eps))
    fresh = SCHEDULERS["TCDScheduler"].sampler(lambda x, sigma: eps - x0, eps, (1.0, 0.5), lambda: torch.ones_like(x0))
    assert torch.allclose(fresh - result, torch.full_like(x0, math.sqrt(0.25 - (scale * below) ** 2)))


@each(ALL)
def test_a_run_may_start_below_sigma_one(entry: Scheduler):
    flow = gaussian()
    levels = sigmas(entry.schedule, 200)
    levels = levels[next(index for index, sigma in enumerate(levels) if sigma <= 0.6) :]
    steps = len(levels) - 1
    if not entry.stochastic:
        assert flow.error(entry.sampler, levels, scores()) < (0.02 if entry.order == 1 else 0.001)
        return
    mean, spread = flow.distribution(entry.sampler, levels, draws(entry, steps))
    assert torch.allclose(mean, flow.mean, atol=1e-6)
    if entry.order > 0:
        assert float((spread / flow.deviation - 1).abs().mean()) < 0.06


@each([entry for entry in SOLVERS if entry.sampler.__name__ in ("euler", "heun", "dpm2", "dpmpp_2s", "deis")])
def test_sigma_one_is_the_limit_of_sigmas_below_it(entry: Scheduler):
    """These depend on 1 - sigma by powers, so a start just below 1 comes close."""
    flow = gaussian()
    exactly = entry.sampler(flow, flow.start(1.0, scores()), sigmas("simple", 12), no_noise)
    below = 1 - 1e-9
    nearly = entry.sampler(flow, flow.start(below, scores()), (below, *sigmas("simple", 12)[1:]), no_noise)
    assert torch.allclose(exactly, nearly, rtol=0, atol=1e-6)


@each([entry for entry in SOLVERS if entry.sampler.__name__ in ("dpmpp_2m", "dpmpp_3m", "unipc_2m", "unipc_3m")])
def test_sigma_one_is_the_limit_in_log_snr_too(entry: Scheduler):
    """There the distance from the limit falls as 1 / log(1 - sigma): from 1e-3 to 1e-15 to less than a third."""
    flow = gaussian()
    exactly = entry.sampler(flow, flow.start(1.0, scores()), sigmas("simple", 12), no_noise)

    def distance(gap: float) -> float:
        levels = (1 - gap, *sigmas("simple", 12)[1:])
        return float((entry.sampler(flow, flow.start(1 - gap, scores()), levels, no_noise) - exactly).abs().mean())

    assert distance(1e-15) < distance(1e-3) / 3


@each([entry for entry in SOLVERS if entry.stochastic])
def test_stochastic_steps_from_sigma_one_are_the_limit_too(entry: Scheduler):
    flow, below, levels = gaussian(), 1 - 1e-12, sigmas("simple", 2)
    exactly = flow.distribution(entry.sampler, levels, draws(entry, 2))
    nearly = flow.distribution(entry.sampler, (below, *levels[1:]), draws(entry, 2))
    for a, b in zip(exactly, nearly, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-4)


@each(ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 28])
def test_the_model_is_called_no_more_than_said_and_never_at_zero(entry: Scheduler, steps: int):
    flow = gaussian()  # refuses sigma 0
    asked = []

    def noise() -> Tensor:
        asked.append(1)
        return torch.ones(2, 16, dtype=torch.float64)

    levels = sigmas(entry.schedule, steps)
    result = entry.sampler(flow, scores(2), levels, noise)
    assert torch.isfinite(result).all()
    assert set(levels[:-1]) <= set(flow.asked)
    assert len(flow.asked) <= entry.evaluations * steps
    assert len(asked) == (draws(entry, steps) if entry.stochastic else 0)
    assert flow.asked == sorted(flow.asked, reverse=True)


@each([entry for entry in ALL if not entry.name.startswith("KDPM2")])
def test_one_step_is_the_prediction_from_pure_noise(entry: Scheduler):
    """Of all but the midpoint rule, which looks once more on the way."""
    flow, start = gaussian(), scores(2)
    result = entry.sampler(flow, start, sigmas(entry.schedule, 1), no_noise)
    assert torch.allclose(result, start - flow(start, 1.0), rtol=0, atol=1e-12)


@each(SOLVERS)
def test_a_thousand_steps_stay_accurate(entry: Scheduler):
    flow, levels = gaussian(), sigmas(entry.schedule, 1000)
    if entry.stochastic:
        x = flow.start(1.0, scores(2))
        noise = NoiseStream([1, 2], (16,))
        assert torch.isfinite(entry.sampler(flow, x, levels, lambda: noise().double())).all()
    else:
        assert flow.error(entry.sampler, levels, scores(4)) < (2e-3 if entry.order == 1 else 2e-4)


@each(ALL)
def test_equal_seeds_give_equal_results_and_others_do_not(entry: Scheduler):
    def run(seed: int) -> Tensor:
        noise = NoiseStream([seed], (16,))
        start = noise.initial if entry.stochastic else scores(1).float()
        return entry.sampler(gaussian(), start, sigmas(entry.schedule, 6), noise)

    torch.manual_seed(1)
    first = run(7)
    torch.manual_seed(2)
    assert torch.equal(first, run(7))
    assert torch.equal(first, run(8)) != entry.stochastic


@each([entry for entry in ALL if entry.stochastic])
def test_noise_of_the_steps_matters_and_not_only_that_of_the_start(entry: Scheduler):
    def run(seed: int) -> Tensor:
        noise = NoiseStream([seed], (16,))
        return entry.sampler(gaussian(), scores(1).float(), sigmas(entry.schedule, 6), noise)

    assert not torch.equal(run(7), run(8))


@each(ALL)
def test_a_result_in_a_batch_is_the_result_alone(entry: Scheduler):
    def run(seeds: list[int]) -> Tensor:
        noise = NoiseStream(seeds, (16,))
        return entry.sampler(gaussian(), noise.initial, sigmas(entry.schedule, 5), noise)

    assert torch.equal(run([3, 4, 5])[1], run([4])[0])


@each(SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_shape_and_the_given_start_are_kept(entry: Scheduler, dtype: torch.dtype):
    flow = GaussianFlow([0.5], [0.7])
    start = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    before = start.clone()
    result = entry.sampler(flow, start, sigmas(entry.schedule, 4), lambda: torch.ones_like(start))
    assert (result.dtype, result.shape) == (dtype, start.shape)
    assert torch.equal(start, before)


@each(DETERMINISTIC)
def test_float32_is_enough(entry: Scheduler):
    flow, levels = gaussian(), sigmas(entry.schedule, 28)
    exact = entry.sampler(flow, scores(4), levels, no_noise)
    single = entry.sampler(flow, scores(4).float(), levels, no_noise)
    assert float((single - exact).abs().max()) < 2e-5


@settings(max_examples=25, deadline=None)
@given(levels=st.lists(st.integers(1, 9999), min_size=0, max_size=12, unique=True), from_one=st.booleans())
def test_any_falling_sigmas_give_finite_results(levels: list[int], from_one: bool):
    falling = sorted((level / 10000 for level in levels), reverse=True)
    schedule = ([1.0] if from_one or not falling else []) + falling + [0.0]
    for entry in SOLVERS:
        flow = gaussian()
        result = entry.sampler(flow, scores(2), schedule, lambda: torch.ones(2, 16, dtype=torch.float64))
        assert torch.isfinite(result).all(), entry.name
        assert len(flow.asked) <= entry.evaluations * (len(schedule) - 1), entry.name
