"""Flows whose velocity is known in closed form, one of them with its solution: what samplers are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from sd3_local.pipelines.samplers import Sampler
from torch import Tensor


def smooth_sigmas(steps: int, start: float = 0.95, stop: float = 0.05) -> list[float]:
    """Sigmas that change smoothly, with first and last steps so small that a solver's start-up costs no order."""
    return [stop + (start - stop) * (1 + math.cos(math.pi * index / steps)) / 2 for index in range(steps + 1)]


class GaussianFlow:
    """The flow between N(mean, deviation^2) of each dimension and standard noise. Counts its evaluations.

    The variance at sigma is (1 - sigma)^2 deviation^2 + sigma^2, and the ODE keeps every point's standard score.
    """

    def __init__(self, mean: Sequence[float] | Tensor, deviation: Sequence[float] | Tensor):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.deviation = torch.as_tensor(deviation, dtype=torch.float64)
        self.asked: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        assert isinstance(sigma, float) and 0.0 < sigma <= 1.0, sigma
        self.asked.append(sigma)
        alpha = 1 - sigma
        mean, variance = self.mean.to(x.dtype), self.deviation.to(x.dtype) ** 2
        score = (x - alpha * mean) / (alpha**2 * variance + sigma**2)
        return sigma * score - (mean + alpha * variance * score)

    def spread(self, sigma: float) -> Tensor:
        """The standard deviation at `sigma`, [D]."""
        return ((1 - sigma) ** 2 * self.deviation**2 + sigma**2).sqrt()

    def start(self, sigma: float, scores: Tensor) -> Tensor:
        """The points at `sigma` with the given standard scores [B, D]."""
        return (1 - sigma) * self.mean + self.spread(sigma) * scores

    def error(self, sampler: Sampler, sigmas: Sequence[float], scores: Tensor) -> float:
        """The mean distance of a deterministic sampler's results from the ODE's."""
        result = sampler(self, self.start(sigmas[0], scores), sigmas, no_noise)
        return float((result - self.start(sigmas[-1], scores)).abs().mean())

    def distribution(self, sampler: Sampler, sigmas: Sequence[float], draws: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [D] of a sampler's results, exactly, not by sampling.

        On this flow a result is linear in the start's standard score and in each of the sampler's `draws`. So a batch
        in which row i has a one in place of variate i, zeros elsewhere, and a last row of zeros alone, gives all
        coefficients and the mean.
        """
        variates = iter(
            torch.eye(draws + 1, draws + 2, dtype=torch.float64).unsqueeze(-1).expand(-1, -1, len(self.mean))
        )
        x = self.start(sigmas[0], next(variates))
        result = sampler(self, x, sigmas, lambda: next(variates))
        assert next(variates, None) is None, "fewer draws than said"
        mean = result[-1]
        return mean, (result[:-1] - mean).square().sum(0).sqrt()


class MixtureFlow:
    """The flow from a mixture of three normal distributions: a velocity that is not linear in x."""

    MEANS = (-1.2, 0.1, 1.3)
    DEVIATIONS = (0.15, 0.3, 0.2)
    WEIGHTS = (0.3, 0.5, 0.2)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        means, deviations, weights = (x.new_tensor(values) for values in (self.MEANS, self.DEVIATIONS, self.WEIGHTS))
        alpha = 1 - sigma
        variance = alpha**2 * deviations**2 + sigma**2
        offset = x.unsqueeze(-1) - alpha * means
        share = torch.softmax(weights.log() - variance.log() / 2 - offset**2 / (2 * variance), -1)
        x0 = (share * (means + alpha * deviations**2 / variance * offset)).sum(-1)
        noise = (share * (sigma / variance * offset)).sum(-1)
        return noise - x0


def no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")
