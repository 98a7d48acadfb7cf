"""The transformer of a plan as diffusers' own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .fill import assign, check_complete, in_background, values
from .part import matrix_role
from .plan import component_targets
from .source import Source
from .transformer_keys import CHANNELS, HEAD, PATCH, TransformerShape

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


def load_transformer(source: Source, *, storage: torch.dtype | None, compute: torch.dtype) -> SD3Transformer2DModel:
    """The module on the CPU, to compute in `compute`, its Linear weights kept in `storage` (None: as in the file).

    Where the two are one type, and the file's, the weights are views of the mapped file.
    Raises RequestError where the file has changed, or has weights that are no numbers.
    """
    shape, targets = source.shape, component_targets(source)
    # diffusers takes a second or two to import, most of it in one thread: time enough to read and cast many weights.
    with in_background(values(source, targets, matrix_role, storage, compute)) as ready:
        module = _without_memory(shape)
        assign(module, targets, ready(), compute)
    check_complete(module)
    return module


def _without_memory(shape: TransformerShape) -> SD3Transformer2DModel:
    from diffusers import SD3Transformer2DModel

    # The meta device also spares the position table, which would be computed for seconds and then replaced.
    with torch.device("meta"):
        return SD3Transformer2DModel(
            patch_size=PATCH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=shape.blocks,
            attention_head_dim=HEAD,
            num_attention_heads=shape.width // HEAD,
            joint_attention_dim=shape.context_width,
            caption_projection_dim=shape.width,
            pooled_projection_dim=shape.pooled_width,
            pos_embed_max_size=shape.table,
            dual_attention_layers=shape.dual,
            qk_norm="rms_norm" if shape.rms_norm else None,
        )
