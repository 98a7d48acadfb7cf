"""Sigma schedules: falling lists of `steps` noise levels from 1, then 0, as host floats."""

from __future__ import annotations

import math
from collections.abc import Callable

TABLE_SIZE = 1000
"""Noise levels in the table that SD3 was trained with and that ComfyUI's "simple" picks from."""
KARRAS_RHO = 7.0
BETA_SHAPE = 0.6


def shifted(sigma: float, shift: float) -> float:
    """sigma moved towards noise, as large pictures ask: Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq 23."""
    # So written, 1 stays 1 exactly for any shift, and solvers treat it as pure noise.
    return sigma / (sigma + (1.0 - sigma) / shift)


def sigmas(schedule: str, steps: int, shift: float = 3.0) -> tuple[float, ...]:
    """The schedule called `schedule`, a key of SCHEDULES: `steps` + 1 strictly falling sigmas from 1 to 0."""
    return (*SCHEDULES[schedule](steps, shift), 0.0)


def _default(steps: int, shift: float) -> list[float]:
    """As diffusers' FlowMatchEulerDiscreteScheduler: evenly spaced between its table's ends, then shifted once more."""
    return [shifted(sigma, shift) for sigma in _linspace(1.0, shifted(1.0 / TABLE_SIZE, shift), steps)]


def _simple(steps: int, shift: float) -> list[float]:
    """ComfyUI's "simple": every n-th entry of the table from the top. For more steps than that, its formula."""
    if steps > TABLE_SIZE:
        return [shifted(1.0 - index / steps, shift) for index in range(steps)]
    # A float stride, as ComfyUI's: exact division picks another entry where a product just misses a whole number.
    stride = TABLE_SIZE / steps
    return [shifted((TABLE_SIZE - int(index * stride)) / TABLE_SIZE, shift) for index in range(steps)]


def _karras(steps: int, shift: float) -> list[float]:
    """Evenly spaced in sigma^(1/7): Karras et al. 2022, https://arxiv.org/abs/2206.00364, equation 5."""
    roots = _linspace(1.0, _last(shift) ** (1.0 / KARRAS_RHO), steps)
    return [root**KARRAS_RHO for root in roots]


def _exponential(steps: int, shift: float) -> list[float]:
    """Evenly spaced in log sigma."""
    return [math.exp(value) for value in _linspace(0.0, math.log(_last(shift)), steps)]


def _beta(steps: int, shift: float) -> list[float]:
    """Denser at both ends: quantiles of a beta distribution, Lee et al. 2024, https://arxiv.org/abs/2407.12173."""
    from scipy.special import betaincinv

    last = _last(shift)
    quantiles = (float(betaincinv(BETA_SHAPE, BETA_SHAPE, value)) for value in _linspace(1.0, 0.0, steps))
    return [quantile + last * (1.0 - quantile) for quantile in quantiles]


def _last(shift: float) -> float:
    """The last sigma above 0 of the default schedule, where the three curves below it end as well."""
    return shifted(shifted(1.0 / TABLE_SIZE, shift), shift)


def _linspace(start: float, stop: float, count: int) -> list[float]:
    """`count` evenly spaced values that include both ends; a single one is the start."""
    return [start + (stop - start) * index / max(count - 1, 1) for index in range(count)]


SCHEDULES: dict[str, Callable[[int, float], list[float]]] = {
    "default": _default,
    "simple": _simple,
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
}
