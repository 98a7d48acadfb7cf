"""Latents to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import latents
from .errors import RequestError
from .monitor import Monitor
from .placement import Resident, when_full

if TYPE_CHECKING:
    import torch

TILE = 64
"""Latents a side of a tile, when the whole picture does not fit."""


def decode(vae: Resident, latent: torch.Tensor, monitor: Monitor) -> torch.Tensor:
    """The picture of one latent: whole where that fits the memory, once more in overlapping tiles of 512 pixels where
    not.

    `latent`: [1, 16, h, w] in the VAE's own space. The picture: [8 h, 8 w, 3], float32 from 0 to 1, on the CPU.
    """

    def work(tiled: bool) -> torch.Tensor:
        monitor.check()
        return _pixels(vae, latent, tiled)

    return when_full(work, _exhausted)[0]


def _exhausted() -> RequestError:
    return RequestError(
        "insufficientMemory",
        "There is not enough memory to decode the picture, not even in tiles: choose a smaller width or height.",
        "width",
    )


def _pixels(vae: Resident, latent: torch.Tensor, tiled: bool) -> torch.Tensor:
    module = vae.module
    height, width = (min(side, TILE) if tiled else side for side in latent.shape[-2:])
    parameter = next(module.parameters())
    room = activation_bytes(width, height, module.config.block_out_channels[0], parameter.element_size())
    with vae.on_device(room) as device:
        z = latent.to(device=device, dtype=parameter.dtype)
        if tiled:
            module.tile_latent_min_size, module.tile_sample_min_size = TILE, TILE * latents.PIXELS
            decoded = module.tiled_decode(z, return_dict=False)[0]
        else:
            decoded = module.decode(z, return_dict=False)[0]
        return (decoded.float().cpu() * 0.5 + 0.5).clamp_(0, 1)[0].movedim(0, -1).contiguous()


def activation_bytes(width: int, height: int, base_channels: int, itemsize: int) -> int:
    """What decoding width x height latents needs beside the weights, in bytes.

    The decoder's last level holds about seventeen maps of the base channels at full size. ComfyUI reserves the same for
    the published VAE, 2178 values a pixel at 128 channels (comfy/sd.py); here it is scaled to any.
    """
    return 17 * base_channels * width * height * latents.PIXELS**2 * itemsize
