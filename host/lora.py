"""What LoRA layers make of a weight, by ComfyUI's own adapters: LoRA, LoHa, LoKr, OFT, GLoRA, full differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import comfy.lora
import torch

from ..pipelines.lora import Adapter


def parse_adapters(tensors: Mapping[str, torch.Tensor], layers: Sequence[str]) -> dict[tuple[str, str], Adapter]:
    """(layer, "weight" or "bias") -> its adapter, for the `layers` that the tensors of a file have."""
    found = comfy.lora.load_lora(dict(tensors), {layer: f"{layer}.weight" for layer in layers}, log_missing=False)
    adapters: dict[tuple[str, str], Adapter] = {}
    for key, patch in found.items():
        layer, _, end = key.rpartition(".")
        adapters[layer, end] = partial(_patched, patch, key)
    return adapters


def _patched(patch: object, key: str, weight: torch.Tensor, strength: float) -> torch.Tensor:
    return comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], weight, key)
