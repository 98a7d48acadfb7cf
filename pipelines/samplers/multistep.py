"""Adams-Bashforth solvers: the earlier steps' predictions, continued as a polynomial, for one evaluation a step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .flow import adams_weights
from .types import Model, Noise

EQUAL_STEP_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams-Bashforth for equal steps, newest value first, by the number of values at hand."""


def lms(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """The linear multistep method of order 4 on the velocity, with the weights that the actual, unequal steps ask for.

    k-diffusion's LMS, whose derivative dx/dsigma is the velocity in a flow.
    """
    history: list[tuple[float, Tensor]] = []
    for sigma, sigma_next in pairwise(sigmas):
        history = [(sigma, model(x, sigma)), *history[:3]]
        weights = adams_weights([time for time, _ in history], sigma, sigma_next)
        for weight, (_, velocity) in zip(weights, history, strict=True):
            x = x + weight * velocity
    return x


def ipndm(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """The improved pseudo linear multistep method: the weights of equal steps on any steps.

    Zhang and Chen 2022, https://arxiv.org/abs/2204.13902, and in a flow also PLMS, Liu et al. 2022,
    https://arxiv.org/abs/2202.09778, whose transfer step is Euler's. Fixed weights cost order where steps are unequal:
    2 instead of 4.
    """
    history: list[Tensor] = []
    for sigma, sigma_next in pairwise(sigmas):
        history = [model(x, sigma), *history[:3]]
        for weight, velocity in zip(EQUAL_STEP_WEIGHTS[len(history) - 1], history, strict=True):
            x = x + ((sigma_next - sigma) * weight) * velocity
    return x


def deis(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Tensor:
    """DEIS of order 3: the noise prediction as a polynomial in rho = sigma / (1 - sigma), integrated exactly.

    rho-AB of Zhang and Chen 2022, https://arxiv.org/abs/2204.13902: d(x / (1 - sigma)) = eps drho. At sigma 1 rho is
    infinite; a node there has no weight in the polynomial, and the step from it is Euler's.
    """
    history: list[tuple[float, Tensor]] = []
    for sigma, sigma_next in pairwise(sigmas):
        velocity = model(x, sigma)
        eps = x + (1.0 - sigma) * velocity
        # The newest value alone makes Euler's step, and that has no large numbers that cancel where rho is large.
        x = x + (sigma_next - sigma) * velocity
        if sigma >= 1.0:
            continue
        rho, rho_next = sigma / (1.0 - sigma), sigma_next / (1.0 - sigma_next)
        weights = adams_weights([rho, *(time for time, _ in history)], rho, rho_next)
        for weight, (_, earlier) in zip(weights[1:], history, strict=True):
            x = x + ((1.0 - sigma_next) * weight) * (earlier - eps)
        history = [(rho, eps), *history[:1]]
    return x
