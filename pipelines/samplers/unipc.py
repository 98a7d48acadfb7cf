"""UniPC for flows: a multistep predictor in log-SNR, each of whose steps the next step's evaluation corrects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from .flow import interpolation_weights, log_snr
from .types import Model, Noise


class _Step(NamedTuple):
    """What a correction needs of the step it corrects: where it began, and the (lambda, x0) it used, newest first."""

    x: Tensor
    sigma: float
    history: list[tuple[float, Tensor]]


def unipc_2m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """UniPC-2 with B(h) = exp(h) - 1 ("bh2"), the solver's recommendation for guided sampling."""
    return _unipc(model, x, sigmas, order=2)


def unipc_3m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """UniPC-3. Order 3 needs no B(h): it cancels in the equations for the weights."""
    return _unipc(model, x, sigmas, order=3)


def _unipc(model: Model, x: Tensor, sigmas: Sequence[float], order: int) -> Tensor:
    """Zhao et al. 2023, https://arxiv.org/abs/2302.04867, predicting x0; the order falls to 1 over the last steps."""
    steps = len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []
    last: _Step | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = x - sigma * model(x, sigma)
        if last is not None:
            x = _corrected(last, sigma, x0)
        history = [(log_snr(sigma), x0), *history[: order - 1]]
        last = _Step(x, sigma, history[: steps - index])
        x = _predicted(last, sigma_next)
    return x


def _predicted(step: _Step, sigma_next: float) -> Tensor:
    """x at `sigma_next` by UniP of the order of the step's history."""
    start, x0 = step.history[0]
    if len(step.history) == 1:
        return x0 + (sigma_next / step.sigma) * (step.x - x0)
    length = log_snr(sigma_next) - start
    if len(step.history) == 2:
        # The paper's shortcut for order 2: the slope with weight 1/2 instead of solving one equation.
        before, x0_before = step.history[1]
        whole = -math.expm1(-length)
        share = 0.5 * whole * length / (before - start)
        return _combined(step, sigma_next, [(whole - share, x0), (share, x0_before)])
    points = [((time - start) / length, value) for time, value in step.history]
    return _combined(step, sigma_next, _weighted(points, length))


def _corrected(step: _Step, sigma: float, x0: Tensor) -> Tensor:
    """x at `sigma` by UniC: the step's history and `x0`, the prediction made at its end."""
    start = step.history[0][0]
    length = log_snr(sigma) - start
    if len(step.history) == 1:
        # The paper's shortcut for order 1. It holds for an infinite step, that from sigma 1, too.
        half = -0.5 * math.expm1(-length)
        return _combined(step, sigma, [(half, x0), (half, step.history[0][1])])
    points = [(1.0, x0), *(((time - start) / length, value) for time, value in step.history)]
    return _combined(step, sigma, _weighted(points, length))


def _combined(step: _Step, sigma_next: float, weighted: Sequence[tuple[float, Tensor]]) -> Tensor:
    x = (sigma_next / step.sigma) * step.x
    for weight, value in weighted:
        x = x + ((1.0 - sigma_next) * weight) * value
    return x


def _weighted(points: Sequence[tuple[float, Tensor]], length: float) -> list[tuple[float, Tensor]]:
    """The values at `points`, in units of a step of `length`, with the weights that integrate their polynomial over it.

    A value from sigma 1 lies infinitely far back in log-SNR; its weight tends to 0 and the others' to what they are
    without it.
    """
    near = [(node, value) for node, value in points if node > -math.inf]
    weights = interpolation_weights([node for node, _ in near], _moments(length, len(near)))
    return [(weight, value) for weight, (_, value) in zip(weights, near, strict=True)]


def _moments(length: float, count: int) -> list[float]:
    """The integrals over t in [0, 1] of h exp(-h (1 - t)) t^n, n < count, for a step of h = `length` in log-SNR."""
    if length < 1.0:
        # The recursion below loses a digit with each power of a small h; the series does not.
        return [
            sum((-length) ** m * length * math.factorial(n) / math.factorial(n + m + 1) for m in range(20))
            for n in range(count)
        ]
    moments = [-math.expm1(-length)]
    for n in range(1, count):
        moments.append(1.0 - n / length * moments[-1])
    return moments
