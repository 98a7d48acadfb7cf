"""Noise to latents: guidance around the transformer, and the sampler around that."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .monitor import Monitor

if TYPE_CHECKING:
    import torch

    from .text import Conditioning

TIMESTEPS = 1000
"""The model is told sigma as a timestep of so many."""


@dataclass(frozen=True)
class Guidance:
    """What pulls the picture: towards `positive`, and away from `negative` by `scale`.

    v = v_negative + scale * (v_positive - v_negative), classifier-free guidance (Ho & Salimans 2022). Without a
    negative conditioning there is one evaluation and no guidance.
    """

    positive: Conditioning
    negative: Conditioning | None
    scale: float

    def to(self, device: torch.device, dtype: torch.dtype) -> Guidance:
        negative = _moved(self.negative, device, dtype) if self.negative is not None else None
        return Guidance(_moved(self.positive, device, dtype), negative, self.scale)


def _moved(conditioning: Conditioning, device: torch.device, dtype: torch.dtype) -> Conditioning:
    return replace(
        conditioning, context=conditioning.context.to(device, dtype), pooled=conditioning.pooled.to(device, dtype)
    )


class Velocity:
    """The guided velocity v = dx / dsigma at (x, sigma), as a sampler asks for it.

    `transformer` is diffusers' SD3Transformer2DModel or takes the same arguments. x is [1, 16, height / 8, width / 8]
    in model space and float32; the transformer computes in `dtype`, and v is float32 again, so that a sampler's sums
    lose nothing. `together` evaluates both conditionings in one batch: faster, but larger. Progress, previews and the
    wish to stop pass through here, because every sampler does.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        guidance: Guidance,
        sigmas: Sequence[float],
        dtype: torch.dtype,
        monitor: Monitor,
        *,
        first_step: int,
        total_steps: int,
        together: bool,
    ):
        self._transformer = transformer
        self._guidance = guidance
        self._ascending = sorted(sigmas)
        self._dtype = dtype
        self._monitor = monitor
        self._first_step = first_step
        self._total_steps = total_steps
        self._together = together

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self._monitor.check()
        velocity = self._guided(x, sigma)
        self._monitor.step(self._first_step + self._step(sigma) + 1, self._total_steps, x - sigma * velocity)
        return velocity

    def _step(self, sigma: float) -> int:
        """The step that `sigma` falls in: by its value, since samplers differ in how often they ask."""
        reached = len(self._ascending) - bisect.bisect_left(self._ascending, sigma)
        return min(max(reached - 1, 0), len(self._ascending) - 2)

    def _guided(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        import torch

        positive, negative, scale = self._guidance.positive, self._guidance.negative, self._guidance.scale
        if negative is None:
            return self._evaluate(x, sigma, positive.context, positive.pooled)
        # Joint attention has no mask, so prompts of different length can't share a batch without changing the picture.
        if self._together and positive.context.shape == negative.context.shape:
            unconditional, conditional = self._evaluate(
                torch.cat([x, x]),
                sigma,
                torch.cat([negative.context, positive.context]),
                torch.cat([negative.pooled, positive.pooled]),
            ).chunk(2)
        else:
            unconditional = self._evaluate(x, sigma, negative.context, negative.pooled)
            conditional = self._evaluate(x, sigma, positive.context, positive.pooled)
        return unconditional + scale * (conditional - unconditional)

    def _evaluate(self, x: torch.Tensor, sigma: float, context: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        import torch

        timestep = torch.full((x.shape[0],), sigma * TIMESTEPS, dtype=torch.float32, device=x.device)
        return self._transformer(
            hidden_states=x.to(self._dtype),
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=timestep,
            return_dict=False,
        )[0].float()


def activation_bytes(width: int, height: int, context_tokens: int, model_width: int, itemsize: int, batch: int) -> int:
    """What one evaluation of the transformer needs beside its weights, in bytes, on the generous side.

    The widest moment of a block holds the hidden states, their normed copy, q, k, v, the attention's result and an MLP
    of four times the width: about 24 times the token matrix.
    """
    tokens = (width // 16) * (height // 16) + context_tokens
    return 24 * batch * tokens * model_width * itemsize
