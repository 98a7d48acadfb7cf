"""SigLIP's picture encoder: what its tensors are called, and the configuration that their shapes imply."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..loading import faults
from ..loading.checkpoint import Table
from ..loading.identify import describe
from ..loading.layout import Target, count_blocks, linear, require, vector, verify

THING = "a SigLIP image encoder"
EXAMPLE = "sigclip_vision_patch14_384.safetensors"
"""A file of the encoder that the published SD3 IP-Adapter takes."""

_ROOT = "vision_model."
_PATCHES = "embeddings.patch_embedding.weight"
_POSITIONS = "embeddings.position_embedding.weight"
_LAYERS = "encoder.layers."
_FC1 = f"{_LAYERS}0.mlp.fc1.weight"
# so400m, the encoder of the published adapter, has heads of 72; SigLIP's other sizes have heads of 64.
_HEADS = (72, 64)
# Published sizes of pictures in pixels are multiples of it, if their patches fill them or not.
_SIDES = 32


@dataclass(frozen=True)
class VisionShape:
    """The configuration of a SigLIP picture encoder, which sees `side` x `side` pixels in patches of `patch`."""

    width: int
    layers: int
    heads: int
    intermediate: int
    patch: int
    side: int

    @property
    def tokens(self) -> int:
        """Into how many patches a picture is cut."""
        return (self.side // self.patch) ** 2


def vision_table(table: Table) -> Table:
    """The picture encoder's part of the table, without its prefix, which transformers 5 no longer writes."""
    found = {name.removeprefix(_ROOT): entry for name, entry in table.items() if name.startswith(_ROOT)}
    return found or table


def identify_vision(whole: Table, path: Path, parameter: str) -> VisionShape:
    """The configuration that the tensors imply. Raises RequestError where the file is no SigLIP picture encoder, where
    something of it is missing, and where its parts do not fit together.
    """
    table = vision_table(whole)
    other = None
    if "embeddings.class_embedding" in table or "visual.class_embedding" in whole:
        other = "a CLIP vision encoder"
    elif "embeddings.cls_token" in table:
        other = "a DINOv2 vision encoder"
    elif _PATCHES not in table:
        other = describe(whole)
    if other is not None:
        told = f"is not a SigLIP image encoder: it holds {other}. Adapters for SD3.5 take {EXAMPLE}."
        raise faults.unsupported(path, told, parameter)
    require(table, (_PATCHES, _POSITIONS, _FC1), THING, path, parameter)
    patches, positions, feed = (table[name].shape for name in (_PATCHES, _POSITIONS, _FC1))
    fits = len(patches) == 4 and len(positions) == len(feed) == 2 and patches[1] == 3 and patches[2] == patches[3] > 0
    head = next((size for size in _HEADS if fits and patches[0] and patches[0] % size == 0), None)
    across = math.isqrt(positions[0]) if fits else 0
    if head is None or not across or across**2 != positions[0]:
        told = (
            f"does not fit together: as {THING} its embeddings and first layer have the shapes {list(patches)}, "
            f"{list(positions)} and {list(feed)}."
        )
        raise faults.invalid(path, told, parameter)
    width, patch = patches[0], patches[2]
    layers = count_blocks(table, _LAYERS)
    shape = VisionShape(width, layers, width // head, feed[0], patch, side_of(across, patch))
    verify(table, vision_targets(shape), THING, path, parameter)
    return shape


def side_of(across: int, patch: int) -> int:
    """The side in pixels of a picture that is cut into `across` x `across` whole patches.

    What the last patch leaves over is seen by nobody, and no tensor tells it: patch14_384 cuts 378 of 384 pixels. Where
    a published size lies in that range it is meant.
    """
    cut = across * patch
    rounded = cut + -cut % _SIDES
    return rounded if rounded < cut + patch else cut


def vision_targets(shape: VisionShape) -> list[Target]:
    """Every parameter of `SiglipVisionModel` of this shape, without the head that pools, with its place in a file."""
    width = shape.width
    targets = [
        Target(_PATCHES, _PATCHES, (width, 3, shape.patch, shape.patch)),
        Target("embeddings.patch_embedding.bias", "embeddings.patch_embedding.bias", (width,)),
        Target(_POSITIONS, _POSITIONS, (shape.tokens, width)),
        *_same(vector, "post_layernorm", width),
    ]
    for number in range(shape.layers):
        layer = f"{_LAYERS}{number}"
        targets += _same(vector, f"{layer}.layer_norm1", width)
        targets += _same(vector, f"{layer}.layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            targets += _same(linear, f"{layer}.self_attn.{name}", width, width)
        targets += _same(linear, f"{layer}.mlp.fc1", shape.intermediate, width)
        targets += _same(linear, f"{layer}.mlp.fc2", width, shape.intermediate)
    return targets


def _same(make: Callable[..., list[Target]], name: str, *sizes: int) -> list[Target]:
    """Targets whose name in the file is their name in the module."""
    return make(name, name, *sizes)
