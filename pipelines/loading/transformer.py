"""The transformer of a plan as diffusers' own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .fill import check_complete, fill
from .plan import component_targets
from .source import Source
from .transformer_keys import CHANNELS, HEAD, PATCH

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


def load_transformer(source: Source, *, storage: torch.dtype | None, compute: torch.dtype) -> SD3Transformer2DModel:
    """The module on the CPU, to compute in `compute`, its Linear weights kept in `storage` (None: as in the file).

    Where the two are one type, and the file's, the weights are views of the mapped file.
    Raises RequestError where the file has changed, or has weights that are no numbers.
    """
    from diffusers import SD3Transformer2DModel

    shape = source.shape
    # The meta device also spares the position table, which would be computed for seconds and then replaced.
    with torch.device("meta"):
        module = SD3Transformer2DModel(
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
    fill(module, source, component_targets(source), storage, compute)
    check_complete(module)
    return module
