"""What the tensors of a LoRA's layers say of the model that they were made for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

UPS = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_B.default.weight", ".lora_B")
DOWNS = (
    *(".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight", ".lora_A.default.weight"),
    ".lora_A",
)
"""Ends of the names of a LoRA's two factors, [rows, rank] and [rank, columns]."""

# Parts of the names of other models' layers, with dots as underscores; the most telling first.
_ORIGINS = (
    ("Qwen-Image", ("img_mlp", "txt_mlp")),
    ("Flux", ("double_blocks_", "single_blocks_", "single_transformer_blocks_")),
    (
        "Stable Diffusion 1.5, 2 or SDXL",
        ("down_blocks_", "up_blocks_", "mid_block_", "input_blocks_", "output_blocks_"),
    ),
    ("Stable Cascade", ("lora_prior_",)),
    ("Wan video", ("cross_attn_q", "cross_attn_k")),
    ("Z-Image or Lumina", ("noise_refiner_", "context_refiner_")),
    ("AuraFlow", ("double_layers_", "single_layers_", "joint_transformer_blocks_")),
)


def origin(keys: Iterable[str]) -> str | None:
    """The kind of model, other than SD3, whose layers a LoRA's keys name; None where they name none that is known."""
    flat = [key.replace(".", "_") for key in keys]
    return next((name for name, parts in _ORIGINS if any(part in key for key in flat for part in parts)), None)


def matrix_shape(tensors: Mapping[str, torch.Tensor], layer: str) -> tuple[int, int] | None:
    """Rows and columns of the matrix that a layer is made for; None where its tensors do not tell."""

    def shape(*suffixes: str) -> tuple[int, ...] | None:
        return next((tuple(tensors[layer + end].shape) for end in suffixes if layer + end in tensors), None)

    up, down = shape(*UPS), shape(*DOWNS)
    if up and down:
        return up[0], math.prod(down[1:])
    if (left := shape(".hada_w1_a")) and (right := shape(".hada_w1_b")):
        return left[0], math.prod(right[1:])
    first = _factor(shape(".lokr_w1"), shape(".lokr_w1_a"), shape(".lokr_w1_b"))
    second = _factor(shape(".lokr_w2"), shape(".lokr_w2_a"), shape(".lokr_w2_b"))
    if first is not None and second is not None and shape(".lokr_t2") is None:
        return first[0] * second[0], first[1] * second[1]
    whole = shape(".diff", ".set_weight")
    return (whole[0], math.prod(whole[1:])) if whole else None


def _factor(
    whole: tuple[int, ...] | None, left: tuple[int, ...] | None, right: tuple[int, ...] | None
) -> tuple[int, int] | None:
    if whole:
        return whole[0], math.prod(whole[1:])
    return (left[0], math.prod(right[1:])) if left and right else None
