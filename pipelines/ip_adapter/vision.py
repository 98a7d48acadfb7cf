"""What sees the guide pictures: an image encoder, as IP-Adapters take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import RequestError
from ..loading import faults
from ..loading.checkpoint import read_table
from ..loading.fill import Role
from ..loading.layout import Target
from ..loading.part import Part, matrix_role
from ..placement import when_full
from .vision_keys import VisionShape, identify_vision, vision_table, vision_targets

if TYPE_CHECKING:
    import torch
    from transformers import SiglipVisionModel

    from ..monitor import Monitor
    from ..placement import Placement

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
        self._encoder = Part(
            "vision",
            path,
            PARAMETER,
            self.shape,
            vision_table(whole),
            vision_targets(self.shape),
            placement,
            lambda: _without_memory(self.shape),
            role=_role,
            inner=_inner,
            finish=self._number_places,
        )

    @property
    def reading_seconds(self) -> float:
        """Seconds that went into reading the file."""
        return self._encoder.reading_seconds

    def encode(self, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """As `ImageEncoder.encode`."""
        resident, shape = self._encoder.resident(), self.shape

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

    def _number_places(self, module: torch.nn.Module) -> None:
        import torch

        # Not saved in files, and on the meta device it stays without values.
        _inner(module).embeddings.position_ids = torch.arange(self.shape.tokens).expand(1, -1)


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


def _role(target: Target) -> Role:
    """All matrices but the table of places are weights of Linear layers."""
    return Role.OTHER if target.name.endswith("position_embedding.weight") else matrix_role(target)


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
