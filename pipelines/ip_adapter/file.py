"""An IP-Adapter's file: known by its header, read when it is first needed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..loading import Source, faults
from ..loading.checkpoint import read_table
from ..loading.fill import Role, assign, check_complete, in_background, values
from ..loading.layout import Target, storage_dtype
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
        self._reading_seconds = 0.0
        if encoder.width != self.shape.embed_width:
            told = f'"{encoder.name}" gives tokens of {encoder.width} features, but "{self.name}" takes '
            told += f"{self.shape.embed_width}: choose the image encoder that it was trained with"
            raise RequestError("incompatibleEncoder", f"{told}{_example(self.shape)}.", ENCODER)
        self._targets = ip_adapter_targets(self.shape, is_original(table))
        entries = [table[target.source] for target in self._targets]
        self._source = Source(
            "ip_adapter",
            path,
            PARAMETER,
            self.shape,
            storage_dtype(table, self._targets),
            sum(entry.numel for entry in entries),
            sum(entry.nbytes for entry in entries),
            table,
        )
        self._placement = placement
        self._resident: Resident | None = None

    @property
    def reading_seconds(self) -> float:
        """Seconds that went into reading the files of adapter and encoder."""
        return self._reading_seconds + self.encoder.reading_seconds

    def resident(self) -> Resident:
        """A module of two parts: `image_proj`, diffusers' IPAdapterTimeImageProjection, and `ip_adapter`, a
        SD3IPAdapterJointAttnProcessor2_0 for each block, of which only the layers are used.

        Raises RequestError where the file has changed, or has weights that are no numbers.
        """
        if self._resident is None:
            started = time.perf_counter()
            source = self._source
            precision = self._placement.precision(source.kind, source.dtype, source.parameters)
            module = _load(source, self.shape, self._targets, precision.storage, precision.compute)
            self._resident = self._placement.adopt(source.kind, module)
            self._reading_seconds += time.perf_counter() - started
        return self._resident


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


@contextmanager
def within(path: str) -> Iterator[None]:
    """Faults of files that are found in this context are told of the object at `path`, such as `ipAdapters[1]`."""
    try:
        yield
    except RequestError as error:
        raise RequestError.of(replace(fault, parameter=f"{path}.{fault.parameter}") for fault in error.faults) from None


def _example(shape: IPAdapterShape) -> str:
    return f", such as {EXAMPLE}" if shape.embed_width == 1152 else ""


def _load(
    source: Source, shape: IPAdapterShape, targets: list[Target], storage: torch.dtype | None, compute: torch.dtype
) -> torch.nn.Module:
    with in_background(values(source, targets, _role, storage, compute)) as ready:
        module = _without_memory(shape)
        assign(module, targets, ready(), compute)
    check_complete(module)
    return module


def _role(target: Target) -> Role:
    """Known from the shape alone: the module's only matrices are the weights of its Linear layers."""
    return Role.LINEAR if len(target.shape) == 2 else Role.OTHER


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
