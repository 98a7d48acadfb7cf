"""Samplers and schedules equal to diffusers' own, where those are right.

diffusers makes no usable sigmas for most of its solvers on a flow, so each is given ours after `set_timesteps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from sd3_local.pipelines.samplers import SCHEDULERS, sigmas
from torch import Tensor

from tests.flows import MixtureFlow, no_noise

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def start() -> Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


def run(solver: Any, levels: Sequence[float], noises: Sequence[Tensor] = ()) -> Tensor:
    """The mixture flow, sampled by a diffusers scheduler on `levels`."""
    steps, flow, x = len(levels) - 1, MixtureFlow(), start()
    solver.set_timesteps(steps)
    assert solver.num_inference_steps == steps
    solver.sigmas = torch.tensor(levels, dtype=torch.float32)
    solver.timesteps = solver.sigmas[:-1] * 1000
    solver.set_begin_index(0)
    for index, sigma in enumerate(levels[:-1]):
        extra = {"variance_noise": noises[index]} if noises else {}
        x = solver.step(flow(x, sigma), solver.timesteps[index], x, **extra).prev_sample
    return x


def ours(name: str, levels: Sequence[float]) -> Tensor:
    return SCHEDULERS[name].sampler(MixtureFlow(), start(), levels, no_noise)


@pytest.mark.parametrize("schedule", ["simple", "karras", "beta", "default"])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 14, 15, 28])
@pytest.mark.parametrize(("name", "order"), [("DPM++ 2M", 2), ("DPM++ 3M", 3)])
def test_dpmpp_multistep(name: str, order: int, steps: int, schedule: str):
    from diffusers import DPMSolverMultistepScheduler

    levels = sigmas(schedule, steps)
    solver = DPMSolverMultistepScheduler(solver_order=order, **FLOW)
    assert torch.allclose(ours(name, levels), run(solver, levels), rtol=0, atol=2e-5)


@pytest.mark.parametrize("schedule", ["simple", "karras"])
@pytest.mark.parametrize("steps", [2, 8, 28])
def test_dpmpp_2m_sde_with_the_same_noise(steps: int, schedule: str):
    from diffusers import DPMSolverMultistepScheduler

    levels = sigmas(schedule, steps)
    generator = torch.Generator().manual_seed(1)
    noises = [torch.randn(start().shape, generator=generator) for _ in range(steps)]
    solver = DPMSolverMultistepScheduler(solver_order=2, algorithm_type="sde-dpmsolver++", **FLOW)
    drawn = iter(noises)
    mine = SCHEDULERS["DPM++ 2M SDE"].sampler(MixtureFlow(), start(), levels, lambda: next(drawn))
    assert torch.allclose(mine, run(solver, levels, noises), rtol=0, atol=2e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 28])
@pytest.mark.parametrize(("name", "order"), [("UniPC", 2), ("UniPC 3M", 3)])
def test_unipc(name: str, order: int, steps: int):
    """From just below sigma 1: at 1 itself, where its log-SNR is infinite, diffusers' UniPC gives NaN."""
    from diffusers import UniPCMultistepScheduler

    levels = (0.995, *sigmas("simple", steps)[1:])
    solver = UniPCMultistepScheduler(solver_order=order, solver_type="bh2", **FLOW)
    assert torch.allclose(ours(name, levels), run(solver, levels), rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 8, 28])
def test_heun(steps: int):
    from diffusers import FlowMatchHeunDiscreteScheduler

    levels, flow, x = sigmas("default", steps), MixtureFlow(), start()
    solver = FlowMatchHeunDiscreteScheduler(shift=3.0)
    solver.set_timesteps(steps)
    # It lists every inner sigma twice, once for each evaluation.
    doubled = [levels[0], *(level for level in levels[1:-1] for _ in range(2)), levels[-1]]
    solver.sigmas = torch.tensor(doubled, dtype=torch.float32)
    solver.timesteps = solver.sigmas[:-1] * 1000
    solver.set_begin_index(0)
    for timestep, sigma in zip(solver.timesteps, doubled[:-1], strict=True):
        x = solver.step(flow(x, sigma), timestep, x).prev_sample
    assert torch.allclose(ours("Heun", levels), x, rtol=0, atol=2e-5)


def test_euler_and_the_default_list():
    from diffusers import FlowMatchEulerDiscreteScheduler

    flow, x = MixtureFlow(), start()
    solver = FlowMatchEulerDiscreteScheduler(shift=3.0)
    solver.set_timesteps(28)
    for timestep in solver.timesteps:
        x = solver.step(flow(x, float(timestep) / 1000), timestep, x).prev_sample
    assert torch.allclose(ours("Default", sigmas("default", 28)), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize(
    ("schedule", "option"),
    [
        ("default", None),
        ("karras", "use_karras_sigmas"),
        ("exponential", "use_exponential_sigmas"),
        ("beta", "use_beta_sigmas"),
    ],
)
def test_schedules(schedule: str, option: str | None, shift: float):
    from diffusers import FlowMatchEulerDiscreteScheduler

    solver = FlowMatchEulerDiscreteScheduler(shift=shift, **({option: True} if option else {}))
    tolerance = 1e-6 if schedule == "default" else 1e-5
    # A single step has no last sigma to end a curve at; there the curves keep to 1.
    for steps in range(1 if schedule == "default" else 2, 101):
        solver.set_timesteps(steps)
        expected = solver.sigmas.double()
        assert torch.allclose(torch.tensor(sigmas(schedule, steps, shift)).double(), expected, rtol=0, atol=tolerance)
