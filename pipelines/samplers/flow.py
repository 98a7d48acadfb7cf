"""The few facts about the flow that its solvers share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def log_snr(sigma: float) -> float:
    """lambda = log((1 - sigma) / sigma), the time in which DPM-Solver++ and UniPC interpolate: -inf at 1, inf at 0."""
    if sigma >= 1.0:
        return -math.inf
    if sigma <= 0.0:
        return math.inf
    return math.log1p(-sigma) - math.log(sigma)


def snr_midpoint(sigma: float, sigma_next: float) -> float:
    """The sigma where (1 - sigma) / sigma is midway between its two values: their harmonic mean.

    Unlike the midpoint in log-SNR it exists for a step from sigma 1.
    """
    return 2.0 * sigma * sigma_next / (sigma + sigma_next)


def interpolation_weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights w with sum_j w_j f(nodes[j]) = integral of k(t) f(t) for every polynomial f of degree < len(nodes).

    `moments[n]` is the integral of k(t) t^n. Exact for any distinct nodes, so steps need not be equal.
    """
    powers = np.vander(np.asarray(nodes, dtype=np.float64), len(nodes), increasing=True)
    return np.linalg.solve(powers.T, np.asarray(moments[: len(nodes)], dtype=np.float64)).tolist()


def adams_weights(times: Sequence[float], start: float, stop: float) -> list[float]:
    """Weights that integrate, from `start` to `stop`, the polynomial through values at `times`."""
    step = stop - start
    # In units of the step: powers of raw sigma differences would cancel to nothing when steps are small.
    nodes = [(time - start) / step for time in times]
    return [step * weight for weight in interpolation_weights(nodes, [1.0 / (n + 1) for n in range(len(nodes))])]


def reverse_sde_step(x: Tensor, x0: Tensor, sigma: float, sigma_next: float, noise: Tensor) -> Tensor:
    """The exact solution of the reverse SDE over one step in which the prediction `x0` stays as it is.

    SDE-DPM-Solver++ (1) of Lu et al. 2022, https://arxiv.org/abs/2211.01095, and also DDIM with eta = 1. Written
    without logarithms, it holds at sigma 1, where it becomes (1 - sigma_next) x0 + sigma_next noise.
    """
    decay = snr_decay(sigma, sigma_next)
    mean = (sigma_next / sigma * decay) * x + ((1.0 - sigma_next) * (1.0 - decay**2)) * x0
    return mean + (sigma_next * math.sqrt(1.0 - decay**2)) * noise


def snr_decay(sigma: float, sigma_next: float) -> float:
    """exp(-(lambda_next - lambda)), the amplitude SNR before a step over that after it: 0 for a step from sigma 1."""
    return sigma_next * (1.0 - sigma) / (sigma * (1.0 - sigma_next))


def renoise(x: Tensor, sigma: float, sigma_next: float, noise: Tensor) -> Tensor:
    """x, given at `sigma`, carried up to a larger `sigma_next` by the forward process: less data, more noise."""
    scale = (1.0 - sigma_next) / (1.0 - sigma)
    return scale * x + math.sqrt(sigma_next**2 - (scale * sigma) ** 2) * noise
