"""Noise to latents: guidance around the transformer, and the sampler around that."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..caching import CacheRun, DiffusersForward
from .features import Call, Feature, Moment
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
    wish to stop pass through here, because every sampler does; and so do the `features`, in their order. A `cache`
    decides what of the transformer is computed.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        guidance: Guidance,
        sigmas: Sequence[float],
        dtype: torch.dtype,
        monitor: Monitor,
        *,
        features: Sequence[Feature] = (),
        cache: CacheRun | None = None,
        first_step: int,
        total_steps: int,
        together: bool,
    ):
        self._transformer = transformer
        self._guidance = guidance
        self._ascending = sorted(sigmas)
        self._dtype = dtype
        self._monitor = monitor
        self._features = features
        self._cache = cache
        self._attending: Call | None = None
        self._first_step = first_step
        self._total_steps = total_steps
        self._together = together

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self._monitor.check()
        moment = Moment(self._step(sigma), len(self._ascending) - 1, sigma)
        seen = x
        for feature in self._features:
            seen = feature.prepare(seen, moment)
        velocity = self._guided(seen, moment)
        for feature in self._features:
            velocity = feature.correct(x, seen, velocity, moment)
        reused = self._cache is not None and self._cache.reused
        self._monitor.step(self._first_step + moment.step + 1, self._total_steps, x - sigma * velocity, reused)
        return velocity

    def _step(self, sigma: float) -> int:
        """The step that `sigma` falls in: by its value, since samplers differ in how often they ask."""
        reached = len(self._ascending) - bisect.bisect_left(self._ascending, sigma)
        return min(max(reached - 1, 0), len(self._ascending) - 2)

    def _guided(self, x: torch.Tensor, moment: Moment) -> torch.Tensor:
        import torch

        positive, negative, scale = self._guidance.positive, self._guidance.negative, self._guidance.scale
        if negative is None:
            (alone,) = self._evaluate([self._call(x, moment, (positive,), (True,))])
            return alone
        # Joint attention has no mask, so prompts of different length can't share a batch without changing the picture.
        if self._together and positive.context.shape == negative.context.shape:
            both = self._call(torch.cat([x, x]), moment, (negative, positive), (False, True))
            unconditional, conditional = self._evaluate([both])[0].chunk(2)
        else:
            unconditional, conditional = self._evaluate(
                [self._call(x, moment, (negative,), (False,)), self._call(x, moment, (positive,), (True,))]
            )
        return unconditional + scale * (conditional - unconditional)

    def _call(
        self, x: torch.Tensor, moment: Moment, parts: Sequence[Conditioning], conditional: tuple[bool, ...]
    ) -> Call:
        import torch

        return Call(
            moment,
            latents=x.to(self._dtype),
            context=torch.cat([part.context for part in parts]),
            pooled=torch.cat([part.pooled for part in parts]),
            timestep=torch.full((x.shape[0],), moment.sigma * TIMESTEPS, dtype=torch.float32, device=x.device),
            conditional=conditional,
        )

    def _evaluate(self, calls: Sequence[Call]) -> list[torch.Tensor]:
        """The velocities, in float32, of all calls of one moment; a cache decides about them together."""
        if self._cache is None:
            return [self._whole(call).float() for call in calls]
        moment = calls[0].moment
        signature = tuple(feature.signature(moment) for feature in self._features)
        made = self._cache.evaluate(moment.sigma, {call.conditional: self._parts(call) for call in calls}, signature)
        return [velocity.float() for velocity in made]

    def _whole(self, call: Call) -> torch.Tensor:
        return self._transformer(
            hidden_states=call.latents,
            encoder_hidden_states=call.context,
            pooled_projections=call.pooled,
            timestep=call.timestep,
            block_controlnet_hidden_states=self._residuals(call),
            joint_attention_kwargs=self._attention(call),
            return_dict=False,
        )[0]

    def _parts(self, call: Call) -> DiffusersForward:
        return DiffusersForward(
            self._transformer,
            call.latents,
            call.context,
            call.pooled,
            call.timestep,
            residuals=partial(self._residuals, call),
            attention=partial(self._attention, call),
        )

    def _residuals(self, call: Call) -> list[torch.Tensor] | None:
        given = [added for feature in self._features if (added := feature.residuals(call)) is not None]
        if not given:
            return None
        return [sum(per_block[1:], start=per_block[0]).to(self._dtype) for per_block in zip(*given, strict=True)]

    def _attention(self, call: Call) -> dict[str, Any] | None:
        if call is not self._attending:
            # Features tell their processors of one call at a time.
            self._arguments: dict[str, Any] = {}
            for feature in self._features:
                self._arguments |= feature.attention(call)
            self._attending = call
        return self._arguments or None


def activation_bytes(width: int, height: int, context_tokens: int, model_width: int, itemsize: int, batch: int) -> int:
    """What one evaluation of the transformer needs beside its weights, in bytes, on the generous side.

    The widest moment of a block holds the hidden states, their normed copy, q, k, v, the attention's result and an MLP
    of four times the width: about 24 times the token matrix.
    """
    tokens = (width // 16) * (height // 16) + context_tokens
    return 24 * batch * tokens * model_width * itemsize
