"""Inpainting: what the mask keeps follows the seed image's own noisy path, and is the seed image at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .features import Feature, Moment, Stage

if TYPE_CHECKING:
    import torch


class KeepOutside(Feature):
    """Holds latents to `init` where `mask` is 0, and in part where it is between 0 and 1.

    `init` and `noise` are [1, 16, h, w] in model space, `mask` is [1, 1, h, w]. The transformer sees the masked blend
    of x and the noisy seed image, and its predicted picture is blended with the seed image: for every sampler, that is
    what ComfyUI's KSampler does with a noise mask (comfy/samplers.py, KSamplerX0Inpaint).
    """

    def __init__(self, init: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor):
        self._init = init
        self._noise = noise
        self._mask = mask

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        tensors = (self._init, self._noise, self._mask)
        self._init, self._noise, self._mask = (tensor.to(stage.device) for tensor in tensors)
        yield

    def prepare(self, x: torch.Tensor, moment: Moment) -> torch.Tensor:
        noisy = moment.sigma * self._noise + (1 - moment.sigma) * self._init
        return x * self._mask + noisy * (1 - self._mask)

    def correct(self, x: torch.Tensor, seen: torch.Tensor, velocity: torch.Tensor, moment: Moment) -> torch.Tensor:
        x0 = (seen - moment.sigma * velocity) * self._mask + self._init * (1 - self._mask)
        return (x - x0) / moment.sigma

    def finish(self, latent: torch.Tensor) -> torch.Tensor:
        import torch

        # The sampler's sums come near the seed image; a pixel that is kept is to be the same to the last bit.
        return torch.where(self._mask == 0, self._init, latent)
