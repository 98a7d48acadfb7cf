"""What sees the guide pictures: an image encoder, as IP-Adapters take it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import RequestError
from ..loading import Source, faults
from ..loading.checkpoint import read_table
from ..loading.fill import check_complete, fill
from ..loading.layout import storage_dtype
from ..placement import when_full
from .vision_keys import VisionShape, identify_vision, vision_table, vision_targets

if TYPE_CHECKING:
    import torch
    from transformers import SiglipVisionModel

    from ..monitor import Monitor
    from ..placement import Placement, Resident

PARAMETER = "encoder"
"""What faults of an encoder's file call it: a field of the node, since the API has none."""


class ImageEncoder(Protocol):
    """Makes tokens of `width` features from a picture."""

    name: str
    width: int
    reading_seconds: float

    def encode(self, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """What adapters see of a picture [height, width, 3] from 0 to 1: SigLIP's last hidden states but one,
        [tokens, width], float32 on the CPU. Raises RequestError where the encoder's file has changed or is damaged.
        """
        ...


class VisionFile:
    """SigLIP's picture encoder from a file, as ComfyUI's folder `clip_vision` holds it.

    Only its header is read when it is opened; its module stays for as long as this object lives. Raises RequestError
    for what is no SigLIP, or is damaged.
    """

    def __init__(self, path: Path, placement: Placement):
        whole = read_table(path, PARAMETER)
        self.shape: VisionShape = identify_vision(whole, path, PARAMETER)
        self.name = faults.label(path)
        self.width = self.shape.width
        self.reading_seconds = 0.0
        table, self._targets = vision_table(whole), vision_targets(self.shape)
        entries = [table[target.source] for target in self._targets]
        self._source = Source(
            "vision",
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

    def encode(self, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """As `ImageEncoder.encode`."""
        resident, shape = self._loaded(), self.shape

        def work(streamed: bool) -> torch.Tensor:
            monitor.check()
            module = resident.module
            dtype = _inner(module).post_layernorm.weight.dtype
            # As denoise.activation_bytes: a block holds about 24 times its tokens.
            room = 24 * shape.tokens * shape.width * dtype.itemsize
            with resident.on_device(room, streamed=streamed) as device:
                pixels = squashed(picture, shape.side).to(device, dtype)
                return module(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][0].float().cpu()

        return when_full(work, _exhausted)[0]

    def _loaded(self) -> Resident:
        import torch

        if self._resident is None:
            started = time.perf_counter()
            source = self._source
            precision = self._placement.precision(source.kind, source.dtype, source.parameters)
            module = _without_memory(self.shape)
            fill(_inner(module), source, self._targets, precision.storage, precision.compute)
            # Not saved in files, and on the meta device it stays without values.
            _inner(module).embeddings.position_ids = torch.arange(self.shape.tokens).expand(1, -1)
            check_complete(module)
            self._resident = self._placement.adopt(source.kind, module.eval())
            self.reading_seconds += time.perf_counter() - started
        return self._resident


def squashed(picture: torch.Tensor, side: int) -> torch.Tensor:
    """A picture [height, width, 3] from 0 to 1 as SigLIP is given it: [1, 3, side, side] with mean and deviation 0.5.

    It is squashed, not cut, and has 256 shades a colour again afterwards, as in transformers' SiglipImageProcessor and
    ComfyUI's clip_preprocess.
    """
    import torch

    pixels = picture.movedim(-1, 0)[None]
    if tuple(picture.shape[:2]) != (side, side):
        pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    return ((pixels * 255).clamp(0, 255).round() / 255 - 0.5) / 0.5


def _without_memory(shape: VisionShape) -> SiglipVisionModel:
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.side,
        patch_size=shape.patch,
        vision_use_head=False,
    )
    with torch.device("meta"):
        return SiglipVisionModel(config)


def _inner(module: SiglipVisionModel) -> torch.nn.Module:
    """What files name without a prefix: transformers 5 has it in the model itself."""
    return getattr(module, "vision_model", module)


def _exhausted() -> RequestError:
    told = "There is not enough memory for the image encoder, not even layer by layer: choose a smaller one."
    return RequestError("insufficientMemory", told, PARAMETER)
