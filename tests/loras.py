"""LoRA files in every form that trainers write, of the same change of the same layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 4
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer of the published file, and what diffusers calls it: three names where queries, keys and values are one,
    and with its halves the other way round where `swapped`.
    """

    published: str
    diffusers: tuple[str, ...]
    rows: int
    columns: int
    swapped: bool = False


def layers(width: int, blocks: int, context: int) -> list[Layer]:
    """Some of each kind."""
    first, last = "joint_blocks.0", f"joint_blocks.{blocks - 1}"
    theirs, final = "transformer_blocks.0", f"transformer_blocks.{blocks - 1}"
    image = tuple(f"{theirs}.attn.to_{part}" for part in "qkv")
    text = tuple(f"{theirs}.attn.add_{part}_proj" for part in "qkv")
    return [
        Layer(f"{first}.x_block.attn.qkv", image, 3 * width, width),
        Layer(f"{first}.context_block.attn.qkv", text, 3 * width, width),
        Layer(f"{first}.x_block.attn.proj", (f"{theirs}.attn.to_out.0",), width, width),
        Layer(f"{first}.x_block.mlp.fc1", (f"{theirs}.ff.net.0.proj",), 4 * width, width),
        Layer(f"{first}.x_block.adaLN_modulation.1", (f"{theirs}.norm1.linear",), 6 * width, width),
        Layer(f"{last}.context_block.adaLN_modulation.1", (f"{final}.norm1_context.linear",), 2 * width, width, True),
        Layer("context_embedder", ("context_embedder",), width, context),
        Layer("final_layer.adaLN_modulation.1", ("norm_out.linear",), 2 * width, width, True),
    ]


def factors(some: list[Layer], seed: int = 0, scale: float = 0.3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Published name -> (up [rows, RANK], down [RANK, columns]), large enough to be seen."""
    rng = torch.Generator().manual_seed(seed)
    return {
        layer.published: (
            torch.randn(layer.rows, RANK, generator=rng) * scale,
            torch.randn(RANK, layer.columns, generator=rng) * scale / layer.columns**0.5,
        )
        for layer in some
    }


def _split(layer: Layer, up: torch.Tensor) -> list[torch.Tensor]:
    """The rows of diffusers' layers."""
    if layer.swapped:
        return [torch.cat(up.chunk(2)[::-1])]
    return list(up.chunk(len(layer.diffusers)))


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _form(
    published: bool, name: Callable[[str], str], up: str, down: str, alpha: float | None = None
) -> Callable[[list[Layer], dict], Tensors]:
    """A form in one of the two namings; with an alpha, the factors are such that the change is the same."""

    def write(some: list[Layer], values: dict) -> Tensors:
        made: Tensors = {}
        for layer in some:
            whole, down_ = values[layer.published]
            parts = [(layer.published, whole)] if published else zip(layer.diffusers, _split(layer, whole), strict=True)
            for part, rows in parts:
                key = name(part)
                made[key + up] = (rows if alpha is None else rows * RANK / alpha).contiguous()
                made[key + down] = down_.clone()
                if alpha is not None:
                    made[f"{key}.alpha"] = torch.tensor(float(alpha))
        return made

    return write


def _onetrainer_split(some: list[Layer], values: dict) -> Tensors:
    made: Tensors = {}
    for layer in some:
        whole, down = values[layer.published]
        parts = len(layer.diffusers)
        for number, rows in enumerate(whole.chunk(parts)):
            key = f"transformer.{layer.published}" + (f".{number}" if parts > 1 else "")
            made[f"{key}.lora_up.weight"], made[f"{key}.lora_down.weight"] = rows.contiguous(), down.clone()
    return made


def _full(some: list[Layer], values: dict) -> Tensors:
    return {
        f"diffusion_model.{layer.published}.diff": values[layer.published][0] @ values[layer.published][1]
        for layer in some
    }


def _loha(some: list[Layer], values: dict) -> Tensors:
    """The second product is all ones, so the first is the change."""
    made: Tensors = {}
    for layer in some:
        for name, rows in zip(layer.diffusers, _split(layer, values[layer.published][0]), strict=True):
            key = f"lycoris_{_flat(name)}"
            made[f"{key}.hada_w1_a"], made[f"{key}.hada_w1_b"] = rows.contiguous(), values[layer.published][1].clone()
            made[f"{key}.hada_w2_a"] = torch.full((len(rows), RANK), 1 / RANK)
            made[f"{key}.hada_w2_b"] = torch.ones(RANK, layer.columns)
    return made


def _lokr(some: list[Layer], values: dict) -> Tensors:
    """A Kronecker product with the number 1."""
    made: Tensors = {}
    for layer in some:
        for name, rows in zip(layer.diffusers, _split(layer, values[layer.published][0]), strict=True):
            key = f"lycoris_{_flat(name)}"
            made[f"{key}.lokr_w1"] = torch.ones(1, 1)
            made[f"{key}.lokr_w2"] = rows @ values[layer.published][1]
    return made


FORMS: dict[str, Callable[[list[Layer], dict], Tensors]] = {
    "peft": _form(False, "transformer.{}".format, ".lora_B.weight", ".lora_A.weight"),
    "peft-alpha": _form(False, "transformer.{}".format, ".lora_B.weight", ".lora_A.weight", 8),
    "peft-default": _form(False, "base_model.model.{}".format, ".lora_B.default.weight", ".lora_A.default.weight"),
    "base-model": _form(False, "base_model.model.{}".format, ".lora_B.weight", ".lora_A.weight", 2),
    "diffusers-old": _form(False, "transformer.{}".format, ".lora.up.weight", ".lora.down.weight"),
    "dotted": _form(False, "transformer.{}".format, ".lora_up.weight", ".lora_down.weight", 16),
    "kohya": _form(True, lambda name: f"lora_unet_{_flat(name)}", ".lora_up.weight", ".lora_down.weight", 1),
    "onetrainer": _form(
        False, lambda name: f"lora_transformer_{_flat(name)}", ".lora_up.weight", ".lora_down.weight", 1
    ),
    "onetrainer-omi": _onetrainer_split,
    "comfyui": _form(True, "diffusion_model.{}".format, ".lora_up.weight", ".lora_down.weight", 4),
    "no-prefix": _form(False, "{}".format, ".lora_B.weight", ".lora_A.weight"),
    "no-prefix-published": _form(True, "{}".format, ".lora_up.weight", ".lora_down.weight", 4),
    "lycoris-loha": _loha,
    "lycoris-lokr": _lokr,
    "full-difference": _full,
}
"""Form -> the tensors of a file that makes the same change."""


def write_lora(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path
