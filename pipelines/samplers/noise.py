"""Noise from seeds: the same on every device, and one result's noise never depends on another's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """The start of the result with `seed` (0 to 2^64 - 1): standard normal, `shape`, fp32, on the CPU.

    The values are those of ComfyUI's `prepare_noise` for one latent and of a CPU generator given to diffusers. That
    generator takes the low 32 bits of a seed. The process's global generator is neither read nor changed.
    """
    return _draw(_generator(seed), shape)


class NoiseStream:
    """All noise of a run, fp32 on `device`: `initial` is its start [B, ...], each call the next draw of that shape.

    Result i draws from a generator of its own, seeded with `seeds[i]`: first its initial noise, then what a stochastic
    sampler asks for. So it is the same picture in a batch and alone.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self._generators = [_generator(seed) for seed in seeds]
        self._shape = tuple(shape)
        self._device = device
        self.initial: Tensor = self()

    def __call__(self) -> Tensor:
        return torch.stack([_draw(generator, self._shape) for generator in self._generators]).to(self._device)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
