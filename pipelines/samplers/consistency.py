"""Samplers for distilled consistency models: whole predictions of x0, noised again to the next sigma.

With an ordinary model they do not converge to its distribution, at any number of steps: what is noised is the
mean of all pictures that fit, not one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .flow import renoise
from .types import Model, Noise

TCD_GAMMA = 0.3
"""The share of each target sigma that is made of new noise, the paper's and diffusers' default."""


def lcm(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Multistep consistency sampling, Luo et al. 2023, https://arxiv.org/abs/2310.04378."""
    for sigma, sigma_next in pairwise(sigmas):
        x0 = x - sigma * model(x, sigma)
        x = renoise(x0, 0.0, sigma_next, noise()) if sigma_next > 0.0 else x0
    return x


def tcd(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Strategic stochastic sampling of trajectory consistency models, Zheng et al. 2024, https://arxiv.org/abs/2402.19159.

    The prediction goes to (1 - gamma) sigma_next along the path, noise takes it from there to sigma_next.
    """
    for sigma, sigma_next in pairwise(sigmas):
        down = (1.0 - TCD_GAMMA) * sigma_next
        x = x + (down - sigma) * model(x, sigma)
        if sigma_next > 0.0:
            x = renoise(x, down, sigma_next, noise())
    return x
