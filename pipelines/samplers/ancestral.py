"""Ancestral samplers: each step goes further down than asked, then noise brings it back up to where it should be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .flow import renoise
from .singlestep import midpoint_step
from .types import Model, Noise


def euler_ancestral(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """Euler's step to sigma_next^2 / sigma, then noise up to sigma_next: Euler a for rectified flow, eta = 1."""
    for sigma, sigma_next in pairwise(sigmas):
        down = sigma_next**2 / sigma
        x = x + (down - sigma) * model(x, sigma)
        if sigma_next > 0.0:
            x = renoise(x, down, sigma_next, noise())
    return x


def dpm2_ancestral(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """As Euler a, with the midpoint rule on the way down."""
    for sigma, sigma_next in pairwise(sigmas):
        down = sigma_next**2 / sigma
        x = midpoint_step(model, x, sigma, down)
        if sigma_next > 0.0:
            x = renoise(x, down, sigma_next, noise())
    return x
