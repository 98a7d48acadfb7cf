"""The SD3 transformer's parameters in Stability's and in diffusers' layout, and the configuration that shapes imply.

Facts from the published architecture (https://arxiv.org/abs/2403.03206, section 4 and appendix B) and from the
published files: heads are 64 wide, the feed-forward layers 4 times the width, q, k and v are stacked in Stability's
files, the last block has no context output, and the halves of the last two modulations are (shift, scale) there and
(scale, shift) in diffusers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from . import faults
from .checkpoint import Table
from .layout import QUANT_SUFFIXES, Target, count_blocks, linear, require, vector

HEAD = 64
PATCH = 2
CHANNELS = 16
# Sinusoidal features of a timestep before its first layer.
TIMESTEP_FEATURES = 256
THING = "an SD3 transformer"

_STABILITY = (
    "x_embedder.proj.weight",
    "context_embedder.weight",
    "y_embedder.mlp.0.weight",
    "pos_embed",
    "final_layer.linear.weight",
)
_DIFFUSERS = (
    "pos_embed.proj.weight",
    "context_embedder.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "pos_embed.pos_embed",
    "proj_out.weight",
)


@dataclass(frozen=True)
class TransformerShape:
    """The configuration of an SD3 transformer.

    `table` is the side of the position table in patches of 16 pixels; `dual` are the numbers of the blocks that have
    a second, image-only attention (SD3.5 Medium).
    """

    blocks: int
    width: int
    context_width: int
    pooled_width: int
    table: int
    rms_norm: bool
    dual: tuple[int, ...]

    @property
    def name(self) -> str:
        """The published model of this shape, or the shape."""
        return self._published or f"SD3 ({self.blocks} blocks, width {self.width})"

    @property
    def native_side(self) -> int | None:
        """Pixels a side of the pictures that the model was trained for; None where the shape does not tell."""
        return 1024 if self._published else None

    @property
    def _published(self) -> str | None:
        published = {
            (24, 1536, False, ()): "SD3 Medium",
            (24, 1536, True, tuple(range(13))): "SD3.5 Medium",
            (38, 2432, True, ()): "SD3.5 Large",
        }
        return published.get((self.blocks, self.width, self.rms_norm, self.dual))


def is_stability(table: Table) -> bool:
    """Whether the table has Stability's names and not diffusers'."""
    return any(name.startswith("joint_blocks.") for name in table)


def transformer_shape(table: Table, path: Path, parameter: str) -> TransformerShape:
    """The configuration that the shapes imply. Raises RequestError where they imply none that can be run."""
    stability = is_stability(table)
    if any(name.startswith("context_processor.") for name in table):
        raise faults.unsupported(
            path,
            "has a context processor, an extension of SD3 that diffusers has no counterpart for; use a "
            "plain SD3 or SD3.5 file.",
            parameter,
        )
    names = _STABILITY if stability else _DIFFUSERS
    require(table, names, THING, path, parameter)
    patch, context, pooled, position, out = (table[name].shape for name in names)
    blocks = count_blocks(table, "joint_blocks." if stability else "transformer_blocks.")
    if len(patch) != 4 or len(context) != 2 or len(pooled) != 2 or len(position) != 3 or len(out) != 2 or not blocks:
        raise faults.invalid(
            path,
            f"does not fit together: its embedding layers have the shapes {list(patch)}, {list(context)}, "
            f"{list(pooled)}, {list(position)}, {list(out)}.",
            parameter,
        )
    width = patch[0]
    if patch[1:] != (CHANNELS, PATCH, PATCH) or out[0] != CHANNELS * PATCH * PATCH or width % HEAD or not width:
        raise faults.unsupported(
            path,
            f"has a patch layer {list(patch)} and an output layer {list(out)}; SD3 has {CHANNELS} latent "
            f"channels in and out, patches of {PATCH} and a width in multiples of {HEAD}.",
            parameter,
        )
    side = math.isqrt(position[1])
    if side * side != position[1] or not side:
        raise faults.invalid(path, f"has a position table of {position[1]} places, which is no square.", parameter)
    tail = ".x_block.attn2.qkv.weight" if stability else ".attn2.to_q.weight"
    norm = ".x_block.attn.ln_q.weight" if stability else ".attn.norm_q.weight"
    dual = sorted(int(name.split(".")[1]) for name in table if name.endswith(tail) and name.split(".")[1].isdecimal())
    rms = any(name.endswith(norm) for name in table)
    return TransformerShape(blocks, width, context[1], pooled[1], side, rms, tuple(dual))


def verify_blocks(table: Table, targets: list[Target], path: Path, parameter: str) -> None:
    """Raises RequestError where the blocks have tensors that SD3 does not: such a model would run, and wrongly."""
    known = {target.source for target in targets}
    extra = [
        name
        for name in table
        if name.startswith(("joint_blocks.", "transformer_blocks."))
        and name not in known
        and not name.endswith(QUANT_SUFFIXES)
    ]
    if extra:
        raise faults.unsupported(
            path,
            f'has {len(extra)} tensors in its blocks that SD3 does not have, the first is "{extra[0]}".',
            parameter,
        )


def transformer_targets(shape: TransformerShape, stability: bool) -> list[Target]:
    """Every parameter and saved buffer of `SD3Transformer2DModel` of this shape, with its place in a file."""
    width = shape.width
    patch = ("x_embedder.proj", "pos_embed") if stability else ("pos_embed.proj", "pos_embed.pos_embed")
    time = ("t_embedder.mlp.0", "t_embedder.mlp.2") if stability else _embedder("timestep_embedder")
    text = ("y_embedder.mlp.0", "y_embedder.mlp.2") if stability else _embedder("text_embedder")
    last = ("final_layer.adaLN_modulation.1", "final_layer.linear") if stability else ("norm_out.linear", "proj_out")
    targets = [
        Target("pos_embed.pos_embed", patch[1], (1, shape.table**2, width)),
        Target("pos_embed.proj.weight", f"{patch[0]}.weight", (width, CHANNELS, PATCH, PATCH)),
        Target("pos_embed.proj.bias", f"{patch[0]}.bias", (width,)),
        *linear(_embedder("timestep_embedder")[0], time[0], width, TIMESTEP_FEATURES),
        *linear(_embedder("timestep_embedder")[1], time[1], width, width),
        *linear(_embedder("text_embedder")[0], text[0], width, shape.pooled_width),
        *linear(_embedder("text_embedder")[1], text[1], width, width),
        *linear("context_embedder", "context_embedder", width, shape.context_width),
        *linear("norm_out.linear", last[0], 2 * width, width, swap=stability),
        *linear("proj_out", last[1], PATCH * PATCH * CHANNELS, width),
    ]
    for block in range(shape.blocks):
        targets += _block(shape, block, stability)
    return targets


def _embedder(name: str) -> tuple[str, str]:
    return f"time_text_embed.{name}.linear_1", f"time_text_embed.{name}.linear_2"


def _block(shape: TransformerShape, number: int, stability: bool) -> list[Target]:
    width, final, dual = shape.width, number == shape.blocks - 1, number in shape.dual
    own = f"transformer_blocks.{number}"
    image, context = f"joint_blocks.{number}.x_block", f"joint_blocks.{number}.context_block"

    def layer(name: str, source: str, rows: int, columns: int = width, swap: bool = False) -> list[Target]:
        return linear(f"{own}.{name}", source if stability else f"{own}.{name}", rows, columns, swap=swap and stability)

    def attention(name: str, names: tuple[str, str, str], norms: tuple[str, str], source: str) -> list[Target]:
        found = []
        for index, each in enumerate(names):
            full = f"{own}.{name}.{each}"
            part = {"part": (index, 3)} if stability else {}
            found += linear(full, f"{source}.qkv" if stability else full, width, width, **part)
        for each, stored in zip(norms, ("ln_q", "ln_k"), strict=True) if shape.rms_norm else ():
            full = f"{own}.{name}.{each}"
            found += vector(full, f"{source}.{stored}" if stability else full, HEAD, bias=False)
        return found

    targets = [
        *layer("norm1.linear", f"{image}.adaLN_modulation.1", (9 if dual else 6) * width),
        *layer("norm1_context.linear", f"{context}.adaLN_modulation.1", (2 if final else 6) * width, swap=final),
        *attention("attn", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), f"{image}.attn"),
        *attention(
            "attn", ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"), f"{context}.attn"
        ),
        *layer("attn.to_out.0", f"{image}.attn.proj", width),
        *layer("ff.net.0.proj", f"{image}.mlp.fc1", 4 * width),
        *layer("ff.net.2", f"{image}.mlp.fc2", width, 4 * width),
    ]
    if dual:
        targets += attention("attn2", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), f"{image}.attn2")
        targets += layer("attn2.to_out.0", f"{image}.attn2.proj", width)
    if not final:
        targets += layer("attn.to_add_out", f"{context}.attn.proj", width)
        targets += layer("ff_context.net.0.proj", f"{context}.mlp.fc1", 4 * width)
        targets += layer("ff_context.net.2", f"{context}.mlp.fc2", width, 4 * width)
    return targets
