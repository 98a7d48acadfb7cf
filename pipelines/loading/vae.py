"""The VAE of a plan as diffusers' own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .fill import check_complete, fill
from .plan import component_targets
from .source import Source
from .vae_keys import LATENT_CHANNELS

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Between the VAE's latents and the transformer's: (z - SHIFT) * SCALE. SD3's numbers; no file carries them.
SHIFT = 0.0609
SCALE = 1.5305


def load_vae(source: Source, *, compute: torch.dtype) -> AutoencoderKL:
    """The module on the CPU, in `compute`; where the file has that type, its weights are views of the mapped file.

    Raises RequestError where the file has changed, or has weights that are no numbers.
    """
    from diffusers import AutoencoderKL

    shape = source.shape
    levels = len(shape.channels)
    with torch.device("meta"):
        module = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=shape.channels,
            layers_per_block=shape.blocks,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=shape.channels[0] // 4,
            sample_size=1024,
            scaling_factor=SCALE,
            shift_factor=SHIFT,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=shape.attention,
        )
    fill(module, source, component_targets(source), compute, compute)
    check_complete(module)
    return module
