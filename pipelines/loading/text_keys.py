"""The text encoders' parameters, which all SD3 files name as transformers does, and the configurations shapes imply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import faults
from .checkpoint import Table
from .layout import Target, count_blocks, linear, require, vector

# CLIP's heads are 64 wide in every published size.
HEAD = 64
CLIP_L_WIDTH = 768
CLIP_G_WIDTH = 1280

_ROOT = "text_model."
_LAYER = "text_model.encoder.layers."
_TOKENS = "text_model.embeddings.token_embedding.weight"
_POSITIONS = "text_model.embeddings.position_embedding.weight"
_FC1 = f"{_LAYER}0.mlp.fc1.weight"
_PROJECTION = "text_projection.weight"


@dataclass(frozen=True)
class ClipShape:
    """The configuration of a CLIP text encoder. `projection` is None for clip_l, whose pooled output is used raw."""

    width: int
    layers: int
    intermediate: int
    vocabulary: int
    positions: int
    projection: int | None

    @property
    def pooled_width(self) -> int:
        """Features of the pooled output."""
        return self.width if self.projection is None else self.projection


@dataclass(frozen=True)
class T5Shape:
    """The configuration of a T5 v1.1 encoder. `embedding` is the file's name of the token table."""

    width: int
    layers: int
    heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    buckets: int
    embedding: str


def clip_table(table: Table) -> Table:
    """The table with the names of published files, also where transformers 5 has saved them without `text_model.`."""
    if _TOKENS in table or _TOKENS.removeprefix(_ROOT) not in table:
        return table
    return {name if name == _PROJECTION else _ROOT + name: entry for name, entry in table.items()}


def clip_kind(table: Table, path: Path) -> str:
    """Whether a file of one CLIP text encoder holds "clip_l" or "clip_g".

    By the width where it is a published one. Else one without a projection is clip_l, and of those with one, which
    clip_l files that ComfyUI saved have too, the file's name decides.
    """
    entry = table.get(_TOKENS)
    width = entry.shape[-1] if entry is not None and entry.shape else 0
    if width in (CLIP_L_WIDTH, CLIP_G_WIDTH):
        return "clip_l" if width == CLIP_L_WIDTH else "clip_g"
    return "clip_l" if _PROJECTION not in table or "clip_l" in path.name.lower() else "clip_g"


def clip_shape(table: Table, kind: str, path: Path, parameter: str) -> ClipShape:
    """The configuration that the shapes imply, for "clip_l" or "clip_g". Raises RequestError where they imply none."""
    thing = thing_of(kind)
    names = (_TOKENS, _POSITIONS, _FC1) + ((_PROJECTION,) if kind == "clip_g" else ())
    require(table, names, thing, path, parameter)
    shapes = [table[name].shape for name in names]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] % HEAD or not shapes[0][1]:
        raise faults.invalid(
            path,
            f"does not fit together: as {thing} its embeddings and first layer have the shapes "
            f"{', '.join(str(list(shape)) for shape in shapes)}.",
            parameter,
        )
    (vocabulary, width), (positions, _), (intermediate, _) = shapes[:3]
    projection = shapes[3][0] if kind == "clip_g" else None
    return ClipShape(width, count_blocks(table, _LAYER), intermediate, vocabulary, positions, projection)


def clip_targets(shape: ClipShape) -> list[Target]:
    """Every parameter of `CLIPTextModel` (or `CLIPTextModelWithProjection`) of this shape, with its place in a file."""
    width = shape.width
    targets = [
        Target(_TOKENS, _TOKENS, (shape.vocabulary, width)),
        Target(_POSITIONS, _POSITIONS, (shape.positions, width)),
        *_same(vector, "text_model.final_layer_norm", width),
    ]
    for number in range(shape.layers):
        layer = f"{_LAYER}{number}"
        targets += _same(vector, f"{layer}.layer_norm1", width)
        targets += _same(vector, f"{layer}.layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            targets += _same(linear, f"{layer}.self_attn.{name}", width, width)
        targets += _same(linear, f"{layer}.mlp.fc1", shape.intermediate, width)
        targets += _same(linear, f"{layer}.mlp.fc2", width, shape.intermediate)
    if shape.projection is not None:
        targets += _same(linear, "text_projection", shape.projection, width, False)
    return targets


def t5_shape(table: Table, path: Path, parameter: str) -> T5Shape:
    """The configuration that the shapes imply. Raises RequestError where they imply none that SD3 can use."""
    thing = thing_of("t5")
    first = "encoder.block.0.layer"
    if "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" in table:
        raise faults.unsupported(path, "is a UMT5 text encoder; SD3 uses T5 v1.1 (t5xxl).", parameter)
    if f"{first}.1.DenseReluDense.wi.weight" in table:
        raise faults.unsupported(path, "is a T5 of the first version; SD3 uses T5 v1.1 (t5xxl).", parameter)
    embedding = next(
        (name for name in ("shared.weight", "encoder.embed_tokens.weight") if name in table), "shared.weight"
    )
    names = (
        embedding,
        f"{first}.0.SelfAttention.q.weight",
        f"{first}.0.SelfAttention.relative_attention_bias.weight",
        f"{first}.1.DenseReluDense.wi_0.weight",
    )
    require(table, names, thing, path, parameter)
    shapes = [table[name].shape for name in names]
    heads = shapes[2][1] if len(shapes[2]) == 2 else 0
    if any(len(shape) != 2 for shape in shapes) or not heads or shapes[1][0] % heads or not shapes[1][0]:
        raise faults.invalid(
            path,
            f"does not fit together: as {thing} its embedding and first layer have the shapes "
            f"{', '.join(str(list(shape)) for shape in shapes)}.",
            parameter,
        )
    (vocabulary, width), (inner, _), (buckets, _), (intermediate, _) = shapes
    layers = count_blocks(table, "encoder.block.")
    return T5Shape(width, layers, heads, inner // heads, intermediate, vocabulary, buckets, embedding)


def t5_targets(shape: T5Shape) -> list[Target]:
    """Every parameter of `T5EncoderModel` of this shape, with its place in a file; the token table is named once."""
    inner = shape.heads * shape.head_width
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    targets = [
        Target("shared.weight", shape.embedding, (shape.vocabulary, shape.width)),
        Target(bias, bias, (shape.buckets, shape.heads)),
        *_same(vector, "encoder.final_layer_norm", shape.width, False),
    ]
    for number in range(shape.layers):
        attention, feed = f"encoder.block.{number}.layer.0", f"encoder.block.{number}.layer.1"
        for name in ("q", "k", "v"):
            targets += _same(linear, f"{attention}.SelfAttention.{name}", inner, shape.width, False)
        targets += _same(linear, f"{attention}.SelfAttention.o", shape.width, inner, False)
        for name in ("wi_0", "wi_1"):
            targets += _same(linear, f"{feed}.DenseReluDense.{name}", shape.intermediate, shape.width, False)
        targets += _same(linear, f"{feed}.DenseReluDense.wo", shape.width, shape.intermediate, False)
        targets += _same(vector, f"{attention}.layer_norm", shape.width, False)
        targets += _same(vector, f"{feed}.layer_norm", shape.width, False)
    return targets


def thing_of(kind: str) -> str:
    """What a file of this kind of encoder holds, in words."""
    return {"clip_l": "a CLIP-L text encoder", "clip_g": "a CLIP-G text encoder", "t5": "a T5 text encoder"}[kind]


def _same(make: Callable[..., list[Target]], name: str, *sizes: int | bool) -> list[Target]:
    """Targets whose name in the file is their name in the module."""
    return make(name, name, *sizes)
