"""The VAE's parameters in the original and in diffusers' layout, and the configuration that shapes imply.

Facts from the published files: groups of normalisation are a quarter of the first width (128 and 32), the decoder has
one residual block a level more than the encoder, and the original layout numbers the decoder's levels from the
picture up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import faults
from .checkpoint import Table
from .layout import Target, count_blocks, linear, require, vector

LATENT_CHANNELS = 16
LEVELS = 4
THING = "an SD3 VAE"


@dataclass(frozen=True)
class VAEShape:
    """The configuration of SD3's autoencoder: features of each level from the picture down, residual blocks a level."""

    channels: tuple[int, ...]
    blocks: int
    attention: bool


def is_original(table: Table) -> bool:
    """Whether the table has the original latent-diffusion names and not diffusers'."""
    return any(name.startswith(("encoder.down.", "decoder.up.", "encoder.mid.", "decoder.mid.")) for name in table)


def vae_shape(table: Table, path: Path, parameter: str) -> VAEShape:
    """The configuration that the shapes imply. Raises RequestError where they imply none that SD3 can use."""
    require(table, ("encoder.conv_in.weight", "decoder.conv_in.weight"), THING, path, parameter)
    entry, latent = table["encoder.conv_in.weight"].shape, table["decoder.conv_in.weight"].shape
    if len(latent) != 4 or len(entry) != 4:
        raise faults.unsupported(path, "is a VAE for video; SD3 needs its own VAE for pictures.", parameter)
    if latent[1] != LATENT_CHANNELS:
        raise faults.incompatible(
            path,
            f"is a VAE with {latent[1]} latent channels (SD 1.5 and SDXL have 4); SD3 needs one with "
            f"{LATENT_CHANNELS}.",
            parameter,
        )
    if any(name.startswith(("quant_conv.", "post_quant_conv.")) for name in table):
        raise faults.unsupported(
            path, "is a VAE with quantisation convolutions, which SD3's VAE does not have.", parameter
        )
    original = is_original(table)
    down, block = ("encoder.down.", "block.") if original else ("encoder.down_blocks.", "resnets.")
    levels = count_blocks(table, down)
    blocks = count_blocks(table, f"{down}0.{block}")
    if levels != LEVELS:
        raise faults.unsupported(
            path,
            f"is a VAE of {levels} levels; SD3's has {LEVELS}, which make a latent 8 times smaller than the picture.",
            parameter,
        )
    last = [f"{down}{level}.{block}0.conv2.weight" for level in range(levels)]
    require(table, last, THING, path, parameter)
    channels = tuple(table[name].shape[0] if table[name].shape else 0 for name in last)
    groups = channels[0] // 4
    if not groups or any(width % groups for width in channels):
        raise faults.unsupported(
            path,
            f"is a VAE with levels of {list(channels)} features; SD3's are multiples of a quarter of the first.",
            parameter,
        )
    attention = any(".mid.attn_1." in name or ".mid_block.attentions.0." in name for name in table)
    return VAEShape(channels, blocks, attention)


def vae_targets(shape: VAEShape, original: bool) -> list[Target]:
    """Every parameter of `AutoencoderKL` of this shape, with its place in a file."""
    channels = shape.channels
    return [
        *_half("encoder", channels, shape.blocks, 3, 2 * LATENT_CHANNELS, shape.attention, original),
        *_half("decoder", channels[::-1], shape.blocks + 1, LATENT_CHANNELS, 3, shape.attention, original),
    ]


def _half(
    half: str, channels: tuple[int, ...], blocks: int, inputs: int, outputs: int, attention: bool, original: bool
) -> list[Target]:
    """Encoder or decoder: `channels` in the order in which the data pass them."""
    encoder, levels = half == "encoder", len(channels)
    own_level, level_name = ("down_blocks", "down") if encoder else ("up_blocks", "up")
    middle = channels[-1] if encoder else channels[0]
    norm = f"{half}.norm_out" if original else f"{half}.conv_norm_out"
    targets = [
        *_conv(f"{half}.conv_in", f"{half}.conv_in", channels[0], inputs),
        *vector(f"{half}.conv_norm_out", norm, channels[-1]),
        *_conv(f"{half}.conv_out", f"{half}.conv_out", outputs, channels[-1]),
    ]
    for index in range(2):
        own = f"{half}.mid_block.resnets.{index}"
        targets += _resnet(own, f"{half}.mid.block_{index + 1}" if original else own, middle, middle, original)
    if attention:
        own, source = f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        targets += vector(f"{own}.group_norm", f"{source}.norm" if original else f"{own}.group_norm", middle)
        for name, stored in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            place = f"{source}.{stored}" if original else f"{own}.{name}"
            targets += linear(f"{own}.{name}", place, middle, middle, pointwise=True)
    width = channels[0]
    for level, wide in enumerate(channels):
        own = f"{half}.{own_level}.{level}"
        source = f"{half}.{level_name}.{level if encoder else levels - 1 - level}"
        for index in range(blocks):
            name = f"{own}.resnets.{index}"
            targets += _resnet(name, f"{source}.block.{index}" if original else name, width, wide, original)
            width = wide
        if level < levels - 1:
            own_step, step = ("downsamplers", "downsample") if encoder else ("upsamplers", "upsample")
            name = f"{own}.{own_step}.0.conv"
            targets += _conv(name, f"{source}.{step}.conv" if original else name, wide, wide)
    return targets


def _resnet(name: str, source: str, inputs: int, outputs: int, original: bool) -> list[Target]:
    targets = [
        *vector(f"{name}.norm1", f"{source}.norm1", inputs),
        *_conv(f"{name}.conv1", f"{source}.conv1", outputs, inputs),
        *vector(f"{name}.norm2", f"{source}.norm2", outputs),
        *_conv(f"{name}.conv2", f"{source}.conv2", outputs, outputs),
    ]
    if inputs != outputs:
        shortcut = "nin_shortcut" if original else "conv_shortcut"
        targets += _conv(f"{name}.conv_shortcut", f"{source}.{shortcut}", outputs, inputs, 1)
    return targets


def _conv(name: str, source: str, outputs: int, inputs: int, size: int = 3) -> list[Target]:
    return [
        Target(f"{name}.weight", f"{source}.weight", (outputs, inputs, size, size)),
        Target(f"{name}.bias", f"{source}.bias", (outputs,)),
    ]
