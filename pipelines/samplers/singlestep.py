"""Solvers that look only at the present step: Euler, Heun and the midpoint rule, in sigma."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .types import Model, Noise


def euler(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Euler's method, the reference sampler of Stable Diffusion 3.

    DDIM without noise is the same step: a flow's (1 - s') x0 + s' eps is x + (s' - s) v. On the "simple" schedule it is
    ComfyUI's euler / simple.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (sigma_next - sigma) * model(x, sigma)
    return x


def heun(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Heun's method: the mean of the velocities at both ends of a step. A step to sigma 0 is Euler's.

    Algorithm 1 of Karras et al. 2022, https://arxiv.org/abs/2206.00364, without its noise.
    """
    for sigma, sigma_next in pairwise(sigmas):
        velocity = model(x, sigma)
        end = x + (sigma_next - sigma) * velocity
        if sigma_next > 0.0:
            end = x + (0.5 * (sigma_next - sigma)) * (velocity + model(end, sigma_next))
        x = end
    return x


def dpm2(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """The midpoint rule, the flow's form of k-diffusion's DPM2.

    DPM2 halves the step in log sigma because its models live there; a flow is near straight in sigma, and sigma's own
    midpoint keeps second order in the last step too.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = midpoint_step(model, x, sigma, sigma_next)
    return x


def midpoint_step(model: Model, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x at `sigma_next` by the velocity half way there: two evaluations, second order."""
    middle = 0.5 * (sigma + sigma_next)
    halfway = x + (middle - sigma) * model(x, sigma)
    return x + (sigma_next - sigma) * model(halfway, middle)
