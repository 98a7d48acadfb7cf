"""The published layouts of SD3 ControlNets, and the configuration that the shapes of their tensors imply.

| net | published for | layout |
|---|---|---|
| joint blocks, 16 channels | SD3 Medium (InstantX), SD3.5 Medium (tensorart) | diffusers |
| joint blocks, 17 channels: the last says what to keep | SD3 Medium, inpainting (alimama) | diffusers |
| single blocks, which see no prompt | SD3.5 Large (Stability: blur, canny, depth) | Stability's or diffusers |

Stability's layout is mapped as diffusers' scripts/convert_sd3_controlnet_to_diffusers.py maps it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..loading import faults
from ..loading.checkpoint import Table
from ..loading.identify import describe, find_add_on
from ..loading.layout import QUANT_SUFFIXES, Target, count_blocks, linear, require, verify
from ..loading.transformer_keys import (
    CHANNELS,
    HEAD,
    PATCH,
    TIMESTEP_FEATURES,
    TransformerShape,
    transformer_targets,
)

THING = "an SD3 ControlNet"
TYPES = ("blur", "canny", "depth")
"""What the number `control_type` of Stability's files means, in their order (Stability-AI/sd3.5, dit_embedder.py)."""

_COMMON = (
    "pos_embed_input.proj.weight",
    "controlnet_blocks.0.weight",
    "time_text_embed.text_embedder.linear_1.weight",
)
_BLOCKS = "transformer_blocks."
# ControlNets of other models, told by a part of a name, the most telling first.
_OTHERS = (
    ("a Control-LoRA for SDXL", ("lora_controlnet",)),
    ("a ControlNet for Qwen-Image", ("img_mlp.",)),
    (
        "a ControlNet for Flux",
        ("double_blocks.", "single_transformer_blocks.", "controlnet_x_embedder.", "controlnet_blocks.0.linear."),
    ),
    ("a ControlNet for HunyuanDiT", ("after_proj_list.",)),
    ("a ControlNet for SDXL", ("add_embedding.", "label_emb.", "control_add_embedding.")),
    (
        "a ControlNet for Stable Diffusion 1.5 or 2",
        ("input_hint_block.", "controlnet_cond_embedding.", "controlnet_down_blocks.", "control_model."),
    ),
)


@dataclass(frozen=True)
class ControlNetShape:
    """The configuration of an SD3 ControlNet.

    `context_width` and `table`, the side of its position table in patches of 16 pixels, are None for a net of single
    blocks: it sees no prompt, and takes its positions from the transformer. `channels` is 16, or 17 for a net that is
    also told what to keep. `dual` are the numbers of the blocks with a second, image-only attention. `type` is one of
    TYPES, None where the file does not say.
    """

    layers: int
    width: int
    context_width: int | None
    pooled_width: int
    table: int | None
    channels: int
    rms_norm: bool
    dual: tuple[int, ...]
    type: str | None

    @property
    def inpaints(self) -> bool:
        """Whether it is told what to keep."""
        return self.channels > CHANNELS

    @property
    def shifted(self) -> bool:
        """Whether its hint is in the transformer's own latent space. Nets of joint blocks were trained on latents that
        are scaled, but not shifted; those for inpainting on whole ones. (diffusers: the two SD3 ControlNet pipelines.)
        """
        return self.context_width is None or self.inpaints

    @property
    def sees_pooled(self) -> bool:
        """Whether it is given the prompt's pooled vector: nets of joint blocks were trained on zeros in its place
        (diffusers' `force_zeros_for_pooled_projection`).
        """
        return self.context_width is None

    @property
    def kind(self) -> str:
        """What people call it."""
        if self.context_width is None:
            return f"Stability's {self.type}" if self.type else "Stability's"
        return "inpainting" if self.inpaints else "structure"


def is_original(table: Table) -> bool:
    """Whether the table has the names of Stability's files and not diffusers'."""
    return f"{_BLOCKS}0.attn.qkv.weight" in table


def identify(table: Table, path: Path, parameter: str) -> ControlNetShape:
    """The configuration that the tensors imply. Raises RequestError where the file is no ControlNet of SD3, where
    something of it is missing, and where its parts do not fit together.
    """
    if "pos_embed_input.proj.weight" not in table or f"{_BLOCKS}0.img_mlp.net.0.proj.weight" in table:
        other = next((kind for kind, parts in _OTHERS if any(part in name for name in table for part in parts)), None)
        if other is not None:
            raise faults.unsupported(path, f"is {other}; this pack runs those for SD3 and SD3.5.", parameter)
        if find_add_on(table) != "a ControlNet":
            raise faults.unsupported(path, f"is not a ControlNet: it holds {describe(table)}.", parameter)
    require(table, _COMMON, THING, path, parameter)
    shape = _shape(table, path, parameter)
    targets = control_net_targets(shape, is_original(table))
    verify(table, targets, THING, path, parameter)
    _verify_blocks(table, targets, path, parameter)
    return shape


def control_net_targets(shape: ControlNetShape, original: bool) -> list[Target]:
    """Every parameter and saved buffer of `SD3ControlNetModel` of this shape, with its place in a file."""
    width = shape.width
    targets = [
        Target("pos_embed_input.proj.weight", "pos_embed_input.proj.weight", (width, shape.channels, PATCH, PATCH)),
        Target("pos_embed_input.proj.bias", "pos_embed_input.proj.bias", (width,)),
    ]
    for layer in range(shape.layers):
        name = f"controlnet_blocks.{layer}"
        targets += linear(name, name, width, width)
    if shape.context_width is not None:
        return [*targets, *_joint(shape)]
    for part, columns in (("timestep_embedder", TIMESTEP_FEATURES), ("text_embedder", shape.pooled_width)):
        first, second = f"time_text_embed.{part}.linear_1", f"time_text_embed.{part}.linear_2"
        targets += [*linear(first, first, width, columns), *linear(second, second, width, width)]
    for layer in range(shape.layers):
        targets += _single(f"{_BLOCKS}{layer}", width, original)
    return targets


def _joint(shape: ControlNetShape) -> list[Target]:
    """What a net of joint blocks has of a transformer: all that comes before its last block."""
    base = TransformerShape(
        shape.layers + 1, shape.width, shape.context_width, shape.pooled_width, shape.table, shape.rms_norm, shape.dual
    )
    last = (f"{_BLOCKS}{shape.layers}.", "norm_out.", "proj_out.")
    return [target for target in transformer_targets(base, False) if not target.name.startswith(last)]


def _single(block: str, width: int, original: bool) -> list[Target]:
    def layer(name: str, source: str, rows: int, columns: int = width, **part: object) -> list[Target]:
        return linear(f"{block}.{name}", f"{block}.{source if original else name}", rows, columns, **part)

    targets = [
        *layer("norm1.linear", "adaLN_modulation.1", 6 * width),
        *layer("attn.to_out.0", "attn.proj", width),
        *layer("ff.net.0.proj", "mlp.fc1", 4 * width),
        *layer("ff.net.2", "mlp.fc2", width, 4 * width),
    ]
    for index, name in enumerate(("attn.to_q", "attn.to_k", "attn.to_v")):
        targets += layer(name, "attn.qkv", width, **({"part": (index, 3)} if original else {}))
    return targets


def _shape(table: Table, path: Path, parameter: str) -> ControlNetShape:
    hint, _, pooled = (table[name].shape for name in _COMMON)
    layers = count_blocks(table, _BLOCKS)
    if len(hint) != 4 or len(pooled) != 2 or not layers:
        raise faults.invalid(
            path,
            f"does not fit together: its embedding layers have the shapes {list(hint)} and {list(pooled)}, and it has "
            f"{layers} blocks.",
            parameter,
        )
    width, channels = hint[:2]
    if channels not in (CHANNELS, CHANNELS + 1) or hint[2:] != (PATCH, PATCH) or width % HEAD or not width:
        raise faults.unsupported(
            path,
            f"has a hint layer {list(hint)}; nets for SD3 take {CHANNELS} channels, or {CHANNELS + 1} for inpainting, "
            f"in patches of {PATCH} and have a width in multiples of {HEAD}.",
            parameter,
        )
    if not any(".attn.add_q_proj." in name for name in table):
        control_type = _type(table, path, parameter)
        return ControlNetShape(layers, width, None, pooled[1], None, channels, False, (), control_type)
    require(table, ("context_embedder.weight", "pos_embed.pos_embed"), THING, path, parameter)
    context, position = table["context_embedder.weight"].shape, table["pos_embed.pos_embed"].shape
    side = math.isqrt(position[1]) if len(position) == 3 else 0
    if len(context) != 2 or not side or side * side != position[1]:
        raise faults.invalid(
            path,
            f"does not fit together: its text layer has the shape {list(context)}, and its position table "
            f"{list(position)} is no square of places.",
            parameter,
        )
    dual = sorted(
        int(number)
        for name in table
        if name.startswith(_BLOCKS)
        and name.endswith(".attn2.to_q.weight")
        and (number := name.split(".")[1]).isdecimal()
    )
    rms = any(name.endswith(".attn.norm_q.weight") for name in table)
    return ControlNetShape(layers, width, context[1], pooled[1], side, channels, rms, tuple(dual), None)


def _type(table: Table, path: Path, parameter: str) -> str | None:
    """What Stability's file says that it was trained for."""
    entry = table.get("control_type")
    if entry is None:
        return None
    number = float(entry.read().float()) if entry.numel == 1 and entry.dtype is not None else math.nan
    if number not in range(len(TYPES)):
        known = ", ".join(f"{index} ({name})" for index, name in enumerate(TYPES))
        told = f"says that it is of the type {number:g}; known are {known}."
        raise faults.unsupported(path, told, parameter)
    return TYPES[int(number)]


def _verify_blocks(table: Table, targets: list[Target], path: Path, parameter: str) -> None:
    """Raises RequestError where the blocks have tensors that the architecture does not: it would run, and wrongly."""
    known = {target.source for target in targets}
    extra = [
        name
        for name in table
        if name.startswith((_BLOCKS, "controlnet_blocks.")) and name not in known and not name.endswith(QUANT_SUFFIXES)
    ]
    if extra:
        raise faults.unsupported(
            path,
            f'has {len(extra)} tensors in its blocks that no known ControlNet for SD3 has, the first is "{extra[0]}".',
            parameter,
        )
