"""A ControlNet's file: known by its header, read when it is first needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..loading import Source, faults
from ..loading.checkpoint import read_table
from ..loading.fill import Role, assign, check_complete, in_background, values
from ..loading.folder import read_component
from ..loading.layout import Target, storage_dtype
from ..loading.transformer_keys import CHANNELS, HEAD, PATCH
from .keys import ControlNetShape, control_net_targets, identify, is_original

if TYPE_CHECKING:
    import torch
    from diffusers import SD3ControlNetModel

    from ..placement import Placement, Resident

PARAMETER = "model"
"""What faults of a file call it; `at` gives them the path in the request."""


class ControlNetFile:
    """An opened ControlNet: a file in any of the published layouts, or the folder of a diffusers model.

    Only its header is read when it is opened; its module stays for as long as this object lives. Raises RequestError
    for what is no ControlNet of SD3, or is damaged.
    """

    def __init__(self, path: Path, placement: Placement):
        table = read_component(path, PARAMETER) if path.is_dir() else read_table(path, PARAMETER)
        self.shape: ControlNetShape = identify(table, path, PARAMETER)
        self.name = faults.label(path)
        self.reading_seconds = 0.0
        targets = control_net_targets(self.shape, is_original(table))
        entries = [table[name] for name in {target.source for target in targets}]
        self._source = Source(
            "controlnet",
            path,
            PARAMETER,
            self.shape,
            storage_dtype(table, targets),
            sum(entry.numel for entry in entries),
            sum(entry.nbytes for entry in entries),
            table,
        )
        self._targets = targets
        self._placement = placement
        self._resident: Resident | None = None

    def resident(self) -> Resident:
        """The net, diffusers' SD3ControlNetModel. Raises RequestError where the file has changed, or has weights that
        are no numbers.
        """
        if self._resident is None:
            started = time.perf_counter()
            source = self._source
            precision = self._placement.precision(source.kind, source.dtype, source.parameters)
            module = _load(source, self.shape, self._targets, precision.storage, precision.compute)
            self._resident = self._placement.adopt(source.kind, module)
            self.reading_seconds += time.perf_counter() - started
        return self._resident


@contextmanager
def at(parameter: str) -> Iterator[None]:
    """Faults of a file that are found in this context are told of `parameter`, such as `controlNet[1].model`."""
    try:
        yield
    except RequestError as error:
        raise RequestError.of(replace(fault, parameter=parameter) for fault in error.faults) from None


def _load(
    source: Source,
    shape: ControlNetShape,
    targets: list[Target],
    storage: torch.dtype | None,
    compute: torch.dtype,
) -> SD3ControlNetModel:
    with in_background(values(source, targets, _role, storage, compute)) as ready:
        module = _without_memory(shape)
        assign(module, targets, ready(), compute)
    check_complete(module)
    return module


def _role(target: Target) -> Role:
    """Known from the shape alone: the module's only matrices are the weights of its Linear layers."""
    return Role.LINEAR if len(target.shape) == 2 else Role.OTHER


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
