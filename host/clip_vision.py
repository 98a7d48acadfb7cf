"""ComfyUI's CLIP_VISION object as what sees the guide pictures of an IP-Adapter."""

from __future__ import annotations

from typing import Any

import torch

from ..pipelines.errors import RequestError
from ..pipelines.monitor import Monitor

PARAMETER = "clipVision"

_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_CLASS = "vision_model.embeddings.class_embedding"


class ComfyImageEncoder:
    """A SigLIP that ComfyUI loaded, and moves and computes as it does its own models.

    It gives what `VisionFile` gives of the same file. Raises RequestError for vision encoders of other kinds.
    """

    reading_seconds = 0.0

    def __init__(self, clip_vision: Any):
        weights = clip_vision.get_sd()
        positions = weights.get(_POSITIONS)
        # CLIP has a class token before its patches, DINOv2 has other names.
        if positions is None or _CLASS in weights:
            told = (
                f"{PARAMETER} is no SigLIP image encoder, which SD3 IP-Adapters take: load one with Load CLIP Vision, "
                "such as sigclip_vision_patch14_384.safetensors."
            )
            raise RequestError("unsupportedClipVision", told, PARAMETER)
        self.width: int = positions.shape[1]
        self.name = f"CLIP_VISION of width {self.width}"
        self._clip_vision = clip_vision

    def encode(self, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """As `ImageEncoder.encode`: the last hidden states but one, [tokens, width]."""
        monitor.check()
        seen = self._clip_vision.encode_image(picture[None], crop=False)
        return seen["penultimate_hidden_states"][0].float().cpu()
