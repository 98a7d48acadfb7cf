"""An IP-Adapter's file: known by its header, read when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..loading import faults
from ..loading.checkpoint import read_table
from ..loading.part import Part
from ..loading.transformer_keys import HEAD
from .keys import IPAdapterShape, identify, ip_adapter_targets, is_original
from .vision import PARAMETER as ENCODER
from .vision import ImageEncoder
from .vision_keys import EXAMPLE, VisionShape, identify_vision

if TYPE_CHECKING:
    import torch

    from ..placement import Placement, Resident

PARAMETER = "model"
"""What faults of an adapter's file call it."""


class IPAdapterFile:
    """An opened IP-Adapter, with the image encoder that sees its guide images.

    Only its header is read when it is opened; its module, and what the encoder loads, stay for as long as this object
    lives. Raises RequestError for what is no IP-Adapter of SD3, is damaged, or takes tokens of another width than the
    encoder gives.
    """

    def __init__(self, path: Path, encoder: ImageEncoder, placement: Placement):
        table = read_table(path, PARAMETER)
        self.shape: IPAdapterShape = identify(table, path, PARAMETER)
        self.name = faults.label(path)
        self.encoder = encoder
        if encoder.width != self.shape.embed_width:
            told = f'"{encoder.name}" gives tokens of {encoder.width} features, but "{self.name}" takes '
            told += f"{self.shape.embed_width}: choose the image encoder that it was trained with"
            raise RequestError("incompatibleEncoder", f"{told}{_example(self.shape)}.", ENCODER)
        targets = ip_adapter_targets(self.shape, is_original(table))
        self._adapter = Part(
            "ip_adapter", path, PARAMETER, self.shape, table, targets, placement, lambda: _without_memory(self.shape)
        )

    @property
    def reading_seconds(self) -> float:
        """Seconds that went into reading the files of adapter and encoder."""
        return self._adapter.reading_seconds + self.encoder.reading_seconds

    def resident(self) -> Resident:
        """A module of two parts: `image_proj`, diffusers' IPAdapterTimeImageProjection, and `ip_adapter`, a
        SD3IPAdapterJointAttnProcessor2_0 for each block, of which only the layers are used.

        Raises RequestError where the file has changed, or has weights that are no numbers.
        """
        return self._adapter.resident()


def fitting_encoder(path: Path, files: Iterable[Path]) -> Path:
    """The image encoder among `files` that gives tokens of the width that the adapter at `path` takes; of several, the
    first one for pictures of 384 pixels, which the published adapter was trained with.

    Raises RequestError where there is none, and for what is no IP-Adapter of SD3.
    """
    shape = identify(read_table(path, PARAMETER), path, PARAMETER)
    fitting: list[tuple[Path, VisionShape]] = []
    for file in files:
        try:
            found = identify_vision(read_table(file, ENCODER), file, ENCODER)
        except RequestError:
            # Such folders hold encoders of all kinds.
            continue
        if found.width == shape.embed_width:
            fitting.append((file, found))
    if not fitting:
        told = f'"{faults.label(path)}" needs a SigLIP image encoder of width {shape.embed_width}{_example(shape)}'
        told += ", and there is none in the folder clip_vision: put it there."
        raise RequestError("missingEncoder", told, ENCODER)
    return min(fitting, key=lambda each: each[1].side != 384)[0]


def _example(shape: IPAdapterShape) -> str:
    return f", such as {EXAMPLE}" if shape.embed_width == 1152 else ""


def _without_memory(shape: IPAdapterShape) -> torch.nn.Module:
    import torch
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    with torch.device("meta"):
        projection = IPAdapterTimeImageProjection(
            embed_dim=shape.embed_width,
            output_dim=shape.width,
            hidden_dim=shape.hidden,
            depth=shape.layers,
            dim_head=HEAD,
            heads=shape.heads,
            num_queries=shape.queries,
            ffn_ratio=shape.feed_ratio,
            timestep_in_dim=shape.timestep_features,
        )
        blocks = [
            SD3IPAdapterJointAttnProcessor2_0(shape.width, shape.width, HEAD, timesteps_emb_dim=shape.hidden)
            for _ in range(shape.blocks)
        ]
    return torch.nn.ModuleDict({"image_proj": projection, "ip_adapter": torch.nn.ModuleList(blocks)})
