"""The pictures and files that a request only names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .controlnet import ControlNetFile
    from .faces import FaceDetector
    from .ip_adapter import IPAdapterFile
    from .lora import LoraFile
    from .safety import Classifier


@dataclass(frozen=True)
class Materials:
    """What the names in a request stand for, whoever resolved them: the graph's sockets and folders, or the endpoint.

    `pictures` are [B, height, width, channels] with 1 (a mask), 3 or 4 channels, from 0 to 1. The others are opened
    model files by the `model` of the request's objects. The API names neither a face detector nor a classifier, so
    there is one of each at most.
    """

    pictures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    loras: Mapping[str, LoraFile] = field(default_factory=dict)
    control_nets: Mapping[str, ControlNetFile] = field(default_factory=dict)
    ip_adapters: Mapping[str, IPAdapterFile] = field(default_factory=dict)
    detector: FaceDetector | None = None
    classifier: Classifier | None = None

    @classmethod
    def merged(cls, parts: Iterable[Materials]) -> Materials:
        """All of `parts` in one; of two things with one name the later counts."""
        merged: dict[str, object] = {}
        for part in parts:
            for name in (item.name for item in fields(cls)):
                value = getattr(part, name)
                if isinstance(value, Mapping):
                    merged[name] = {**merged.get(name, {}), **value}
                elif value is not None:
                    merged[name] = value
        return cls(**merged)
