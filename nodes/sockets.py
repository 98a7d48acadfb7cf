"""The types that the pack's nodes hand to each other, and their place in ComfyUI's menu."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipelines.materials import Materials

if TYPE_CHECKING:
    import torch

CATEGORY = "SD3 Local"

Model = io.Custom("SD3_MODEL")
Prompt = io.Custom("SD3_PROMPT")
Inputs = io.Custom("SD3_INPUTS")
Outpaint = io.Custom("SD3_OUTPAINT")
Lora = io.Custom("SD3_LORA")
LoraStack = io.Custom("LORA_STACK")
ControlNet = io.Custom("SD3_CONTROLNET")
IPAdapter = io.Custom("SD3_IPADAPTER")
Accelerator = io.Custom("SD3_ACCELERATOR")
Ultralytics = io.Custom("SD3_ULTRALYTICS")
Safety = io.Custom("SD3_SAFETY")
Result = io.Custom("SD3_RESULT")


@dataclass(frozen=True)
class Spec:
    """What a node says: a part of the request, and the pictures and files that this part names.

    `fields` are the request's, by the API's names, without those that are not set; an array is a tuple of objects.
    """

    fields: Mapping[str, Any]
    materials: Materials = field(default_factory=Materials)

    def followed_by(self, name: str, item: Mapping[str, Any], materials: Materials) -> Spec:
        """With one more item in the array `name`: how chained nodes add up."""
        items = (*self.fields.get(name, ()), item)
        return Spec({**self.fields, name: items}, Materials.merged([self.materials, materials]))


def named(*pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pictures [B, H, W, C] under names that no other picture has, in their order: a request can hold a name only."""
    return {f"graph:{uuid.uuid4()}": picture for picture in pictures}
