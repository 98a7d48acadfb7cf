"""What a sampler is: a pure function of a velocity model, a start, a list of sigmas and a source of noise.

The flow is x_sigma = (1 - sigma) x0 + sigma eps, so the velocity is v = dx/dsigma = eps - x0 and a velocity at (x,
sigma) predicts x0 = x - sigma v and eps = x + (1 - sigma) v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Model = Callable[[Tensor, float], Tensor]
"""The velocity at (x, sigma), of x's shape [B, ...] and dtype. No sampler asks for it at sigma 0."""

Noise = Callable[[], Tensor]
"""The next standard normal draw, of x's shape and dtype."""

Sampler = Callable[[Model, Tensor, Sequence[float], Noise], Tensor]
"""sampler(model, x, sigmas, noise): x, given at sigmas[0], carried to sigmas[-1].

`sigmas` fall strictly from at most 1 to at least 0 and are host floats, so that no step waits for the device.
A sampler keeps nothing between calls; a deterministic one never calls `noise`.
"""
