"""The latent space of Stable Diffusion 3: its shape, and its two scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHANNELS = 16
PIXELS = 8
"""Pixels a side of one latent."""

SCALE = 1.5305
SHIFT = 0.0609
"""From the published SD3 autoencoder's configuration: model space = (VAE space - SHIFT) * SCALE."""


def shape(width: int, height: int) -> tuple[int, int, int]:
    """[16, height / 8, width / 8] of a picture of so many pixels."""
    return (CHANNELS, height // PIXELS, width // PIXELS)


def to_vae(latent: torch.Tensor) -> torch.Tensor:
    """Model space to the VAE's own, which is also what ComfyUI's LATENT holds."""
    return latent / SCALE + SHIFT


def to_model(latent: torch.Tensor) -> torch.Tensor:
    """The VAE's own space to the model's."""
    return (latent - SHIFT) * SCALE
