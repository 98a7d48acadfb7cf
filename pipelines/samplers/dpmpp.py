"""DPM-Solver++ for flows: the prediction of x0, interpolated in log-SNR and integrated exactly, for the ODE or the SDE.

Lu et al. 2022, https://arxiv.org/abs/2211.01095. At sigma 1 the log-SNR is infinite. There every formula has a limit,
which float arithmetic with infinities reaches by itself: a prediction made there lies infinitely far back, so that the
slopes it takes part in are 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .flow import log_snr, reverse_sde_step, snr_decay, snr_midpoint
from .types import Model, Noise

SHORT_RUN = 15
"""Runs of fewer steps leave third order one step early, as the reference implementation does, to stay stable."""


def dpmpp_2m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DPM-Solver++ (2M): second order from the last two predictions."""
    return _multistep(model, x, sigmas, None, order=2)


def dpmpp_3m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DPM-Solver++ (3M) as published and as diffusers runs it.

    Its curvature term has half the weight that third order asks for, so the error falls with the square of the step;
    the full weight was measured to be worse at 8 to 64 steps on the schedules used here. UniPC 3M is the sampler of
    true third order.
    """
    return _multistep(model, x, sigmas, None, order=3)


def dpmpp_2m_sde(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """SDE-DPM-Solver++ (2M): as 2M, with as much new noise in each step as the reverse SDE has."""
    return _multistep(model, x, sigmas, noise, order=2)


def dpmpp_3m_sde(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """SDE-DPM-Solver++ (3M), the SDE's counterpart of 3M."""
    return _multistep(model, x, sigmas, noise, order=3)


def dpmpp_2s(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DPM-Solver++ (2S): second order from a second evaluation inside the step.

    The paper leaves the place of that evaluation free. Midway in (1 - sigma) / sigma, the variable of the integral
    itself, it also serves the step from sigma 1, where midway in log-SNR does not exist. The last step is first order.
    """
    for sigma, sigma_next in pairwise(sigmas):
        velocity = model(x, sigma)
        if sigma_next > 0.0:
            middle = snr_midpoint(sigma, sigma_next)
            halfway = x + (middle - sigma) * velocity
            x0 = halfway - middle * model(halfway, middle)
            x = x0 + (sigma_next / sigma) * (x - x0)
        else:
            x = x - sigma * velocity
    return x


def dpmpp_sde(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DPM-Solver++ SDE: 2S for the reverse SDE, both halves of a step on one path of the noise.

    The whole step's noise is the first half's, carried on, plus the second half's. Drawn apart from the first half's,
    as if the inner evaluation had seen another path, it costs most of the second evaluation's gain (the picture's
    variance comes out too small).
    """
    for sigma, sigma_next in pairwise(sigmas):
        x0 = x - sigma * model(x, sigma)
        if sigma_next <= 0.0:
            return x0
        middle = snr_midpoint(sigma, sigma_next)
        first = noise()
        halfway = reverse_sde_step(x, x0, sigma, middle, first)
        x0 = halfway - middle * model(halfway, middle)
        decay, early, late = snr_decay(sigma, sigma_next), snr_decay(sigma, middle), snr_decay(middle, sigma_next)
        x = (sigma_next / sigma * decay) * x + ((1.0 - sigma_next) * (1.0 - decay**2)) * x0
        x = x + (sigma_next * late * math.sqrt(1.0 - early**2)) * first
        x = x + (sigma_next * math.sqrt(1.0 - late**2)) * noise()
    return x


def ddpm(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DDPM's ancestral step on any schedule: the reverse SDE to first order, which is DDIM with eta = 1."""
    for sigma, sigma_next in pairwise(sigmas):
        x0 = x - sigma * model(x, sigma)
        x = reverse_sde_step(x, x0, sigma, sigma_next, noise()) if sigma_next > 0.0 else x0
    return x


def _multistep(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise | None, order: int) -> Tensor:
    """2M and 3M. With `noise` the reverse SDE is solved, whose exponentials fall twice as fast, without it the ODE."""
    rate = 1.0 if noise is None else 2.0
    steps = len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = x - sigma * model(x, sigma)
        if sigma_next <= 0.0:
            return x0
        history = [(log_snr(sigma), x0), *history[: order - 1]]
        limit = 2 if steps < SHORT_RUN and index == steps - 2 else order
        decay = snr_decay(sigma, sigma_next)
        x = (sigma_next / sigma * decay ** (rate - 1.0)) * x
        x = x + (1.0 - sigma_next) * _integrated_x0(history[:limit], log_snr(sigma_next), rate)
        if noise is not None:
            x = x + (sigma_next * math.sqrt(1.0 - decay**2)) * noise()
    return x


def _integrated_x0(history: Sequence[tuple[float, Tensor]], stop: float, rate: float) -> Tensor:
    """x0 integrated over the step against the weight rate * exp(-rate (stop - lambda)).

    `history` holds (lambda, x0), newest first: one, two or three of them give that order. Slopes are per step.
    """
    start, newest = history[0]
    step = stop - start
    phi1 = -math.expm1(-rate * step)
    if len(history) == 1:
        return phi1 * newest
    gap = (start - history[1][0]) / step
    slope = (newest - history[1][1]) / gap
    if len(history) == 2:
        return phi1 * (newest + 0.5 * slope)
    gap_before = (history[1][0] - history[2][0]) / step
    slope_before = (history[1][1] - history[2][1]) / gap_before
    curvature = (slope - slope_before) / (gap + gap_before)
    phi2 = 1.0 - phi1 / (rate * step)
    phi3 = 0.5 - phi2 / (rate * step)
    return phi1 * newest + phi2 * (slope + gap * curvature) + phi3 * curvature
