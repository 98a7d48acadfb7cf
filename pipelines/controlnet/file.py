"""A ControlNet's file: known by its header, read when it is first needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..loading import faults
from ..loading.checkpoint import read_table
from ..loading.folder import read_component
from ..loading.part import Part
from ..loading.transformer_keys import CHANNELS, HEAD, PATCH
from .keys import ControlNetShape, control_net_targets, identify, is_original

if TYPE_CHECKING:
    from diffusers import SD3ControlNetModel

    from ..placement import Placement, Resident

PARAMETER = "model"
"""What faults of a file call it; `faults.within` gives them the path in the request."""


class ControlNetFile:
    """An opened ControlNet: a file in any of the published layouts, or the folder of a diffusers model.

    Only its header is read when it is opened; its module stays for as long as this object lives. Raises RequestError
    for what is no ControlNet of SD3, or is damaged.
    """

    def __init__(self, path: Path, placement: Placement):
        table = read_component(path, PARAMETER) if path.is_dir() else read_table(path, PARAMETER)
        self.shape: ControlNetShape = identify(table, path, PARAMETER)
        self.name = faults.label(path)
        targets = control_net_targets(self.shape, is_original(table))
        self._net = Part(
            "controlnet", path, PARAMETER, self.shape, table, targets, placement, lambda: _without_memory(self.shape)
        )

    @property
    def reading_seconds(self) -> float:
        """Seconds that went into reading the file."""
        return self._net.reading_seconds

    def resident(self) -> Resident:
        """The net, diffusers' SD3ControlNetModel. Raises RequestError where the file has changed, or has weights that
        are no numbers.
        """
        return self._net.resident()


def _without_memory(shape: ControlNetShape) -> SD3ControlNetModel:
    import torch
    from diffusers import SD3ControlNetModel

    joint = shape.context_width is not None
    with torch.device("meta"):
        return SD3ControlNetModel(
            patch_size=PATCH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=shape.layers,
            attention_head_dim=HEAD,
            num_attention_heads=shape.width // HEAD,
            joint_attention_dim=shape.context_width,
            caption_projection_dim=shape.width,
            pooled_projection_dim=shape.pooled_width,
            pos_embed_max_size=shape.table,
            pos_embed_type="sincos" if joint else None,
            use_pos_embed=joint,
            extra_conditioning_channels=shape.channels - CHANNELS,
            dual_attention_layers=shape.dual,
            qk_norm="rms_norm" if shape.rms_norm else None,
            force_zeros_for_pooled_projection=not shape.sees_pooled,
        )
