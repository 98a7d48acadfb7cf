"""The schedule and the noise of ComfyUI's KSampler, by ComfyUI's own functions."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from sd3_local.pipelines.samplers import SCHEDULERS, initial_noise, sigmas

from tests.flows import MixtureFlow, no_noise


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_simple_is_comfys_for_every_step_count(comfy: ModuleType, shift: float):
    import comfy.model_sampling

    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=shift)
    for steps in range(1, 1001):
        expected = comfy.samplers.simple_scheduler(sampling, steps).double()
        assert torch.allclose(torch.tensor(sigmas("simple", steps, shift)).double(), expected, rtol=0, atol=1e-6), steps


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**63 - 1, 2**64 - 1])
def test_noise_is_comfys_for_one_latent(comfy: ModuleType, seed: int):
    import comfy.sample

    latent = torch.zeros(1, 16, 24, 40)
    assert torch.equal(initial_noise(seed, (16, 24, 40)), comfy.sample.prepare_noise(latent, seed)[0])


def test_ddim_is_comfys_euler_on_simple(comfy: ModuleType):
    import comfy.k_diffusion.sampling

    flow, levels = MixtureFlow(), sigmas("simple", 20)
    start = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, **_: object) -> torch.Tensor:
        return x - float(sigma[0]) * flow(x, float(sigma[0]))

    expected = comfy.k_diffusion.sampling.sample_euler(denoiser, start, torch.tensor(levels), disable=True)
    result = SCHEDULERS["DDIM"].sampler(flow, start, levels, no_noise)
    assert torch.allclose(result, expected, rtol=0, atol=1e-5)
