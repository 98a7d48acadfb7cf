"""What LoRA layers make of a weight, by ComfyUI's own adapters: LoRA, LoHa, LoKr, OFT, GLoRA, full differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import comfy.lora
import torch
from comfy.weight_adapter import LoRAAdapter

from ..pipelines.lora import Adapter


def parse_adapters(tensors: Mapping[str, torch.Tensor], layers: Sequence[str]) -> dict[tuple[str, str], Adapter]:
    """(layer, "weight" or "bias") -> its adapter, for the `layers` that the tensors of a file have.

    Raises ValueError, with what is wrong as a predicate, where the tensors of a layer make no adapter.
    """
    try:
        found = comfy.lora.load_lora(dict(tensors), {layer: f"{layer}.weight" for layer in layers}, log_missing=False)
    except KeyError as error:
        raise ValueError(f'lacks the tensor "{error.args[0]}"') from None
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"has a layer that cannot be read ({error})") from None
    adapters: dict[tuple[str, str], Adapter] = {}
    for key, patch in found.items():
        layer, _, end = key.rpartition(".")
        adapters[layer, end] = _ComfyAdapter(patch, key)
    return adapters


class _ComfyAdapter:
    """An adapter of ComfyUI's, or one of its pairs of "diff" or "set" and a tensor; `key` names the weight."""

    def __init__(self, patch: object, key: str):
        self._patch = patch
        self._key = key

    def __call__(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        computed: list[torch.Tensor] = []

        def seen(change: torch.Tensor) -> torch.Tensor:
            computed.append(change)
            return change

        # A tensor that replaces the weight would be stretched to its shape.
        replaces = isinstance(self._patch, tuple) and self._patch[0] == "set"
        told = f"The tensors of {self._key} do not fit a weight of the shape {list(weight.shape)}."
        if replaces and self._patch[1][0].shape != weight.shape:
            raise ValueError(told)
        try:
            changed = comfy.lora.calculate_weight([(strength, self._patch, 1.0, None, seen)], weight, self._key)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, NameError, TypeError) as error:
            raise ValueError(told) from error
        # Most of what does not fit is only logged there, and the weight comes back as it was.
        if not replaces and not computed:
            raise ValueError(told)
        return changed

    def factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Adapter`."""
        if not isinstance(self._patch, LoRAAdapter):
            return None
        up, down, alpha, *others = self._patch.weights
        if any(other is not None for other in others):
            return None
        scale = 1.0 if alpha is None else alpha / down.shape[0]
        return up.flatten(1).float() * scale, down.flatten(1).float()
