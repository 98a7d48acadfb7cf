"""Latents to pixels and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
        module = vae.module
        with vae.on_device(_room(module, *latent.shape[-2:], tiled)) as device, _tiles(module, tiled):
            z = latent.to(device=device, dtype=_dtype(module))
            decoded = module.decode(z, return_dict=False)[0]
            return (decoded.float().cpu() * 0.5 + 0.5).clamp_(0, 1)[0].movedim(0, -1).contiguous()

    return when_full(work, _exhausted)[0]


def encode(vae: Resident, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
    """The latent [1, 16, h, w], float32 on the CPU in the VAE's own space, of a picture [8 h, 8 w, 3] from 0 to 1.

    It is the middle of the distribution that the VAE gives, so the same picture always has the same latent.
    """

    def work(tiled: bool) -> torch.Tensor:
        monitor.check()
        module = vae.module
        height, width = (side // latents.PIXELS for side in picture.shape[:2])
        with vae.on_device(_room(module, height, width, tiled)) as device, _tiles(module, tiled):
            x = (picture.movedim(-1, 0)[None] * 2 - 1).to(device=device, dtype=_dtype(module))
            return module.encode(x).latent_dist.mode().float().cpu()

    return when_full(work, _exhausted)[0]


def _exhausted() -> RequestError:
    return RequestError(
        "insufficientMemory",
        "There is not enough memory for the picture's VAE, not even in tiles: choose a smaller width or height.",
        "width",
    )


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _room(module: torch.nn.Module, height: int, width: int, tiled: bool) -> int:
    if tiled:
        height, width = min(height, TILE), min(width, TILE)
    return activation_bytes(width, height, module.config.block_out_channels[0], _dtype(module).itemsize)


@contextmanager
def _tiles(module: torch.nn.Module, tiled: bool) -> Iterator[None]:
    """The VAE works in tiles inside this context, if `tiled`."""
    if tiled:
        module.tile_latent_min_size, module.tile_sample_min_size = TILE, TILE * latents.PIXELS
        module.enable_tiling()
    try:
        yield
    finally:
        module.disable_tiling()


def activation_bytes(width: int, height: int, base_channels: int, itemsize: int) -> int:
    """What coding width x height latents needs beside the weights, in bytes.

    The decoder's last level holds about seventeen maps of the base channels at full size. ComfyUI reserves the same for
    the published VAE, 2178 values a pixel at 128 channels (comfy/sd.py); here it is scaled to any.
    """
    return 17 * base_channels * width * height * latents.PIXELS**2 * itemsize
