"""Stage 4: one fp16 file in the layout of the published all-in-one SD3 checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .clock import load
from .store import store

# diffusers' name -> the published name, inside a transformer block; queries, keys and values are one matrix there.
_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_OUTSIDE = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_VAE = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def _swap_halves(tensor: Tensor) -> Tensor:
    """diffusers keeps scale before shift in its final norms, the published files shift before scale."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


def _split(key: str) -> tuple[str, str]:
    """A parameter's module and its kind (weight, bias), or the name itself for a buffer."""
    module, _, kind = key.rpartition(".")
    return (module, "." + kind) if kind in ("weight", "bias") else (key, "")


def transformer_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers SD3Transformer2DModel's state under the published names (without `model.diffusion_model.`)."""
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks."))
    fused = {part: (name, place) for name, parts in _FUSED.items() for place, part in enumerate(parts)}
    made: dict[str, Tensor] = {}
    pieces: dict[str, list[Tensor]] = {}
    for key, tensor in state.items():
        module, kind = _split(key)
        if not key.startswith("transformer_blocks."):
            made[_OUTSIDE[module] + kind] = _swap_halves(tensor) if module == "norm_out.linear" else tensor
            continue
        _, number, inner = module.split(".", 2)
        prefix = f"joint_blocks.{number}."
        if inner in fused:
            name, place = fused[inner]
            pieces.setdefault(prefix + name + kind, [tensor] * 3)[place] = tensor
        else:
            last = inner == "norm1_context.linear" and int(number) == depth - 1
            made[prefix + _BLOCK[inner] + kind] = _swap_halves(tensor) if last else tensor
    return made | {key: torch.cat(parts) for key, parts in pieces.items()}


def vae_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers AutoencoderKL's state under the original names (without `first_stage_model.`)."""
    levels = 1 + max(int(m[1]) for key in state if (m := re.search(r"up_blocks\.(\d)", key)))
    made: dict[str, Tensor] = {}
    for key, tensor in state.items():
        # The original counts the decoder's levels from the full resolution down.
        name = re.sub(r"up_blocks\.(\d)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", key)
        for pattern, replacement in _VAE:
            name = re.sub(pattern, replacement, name)
        convolution = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        made[name] = tensor[:, :, None, None] if convolution else tensor
    return made


def text_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoders' state under `clip_l.transformer.` and `clip_g.transformer.`."""
    made = {}
    for key, tensor in state.items():
        encoder, name = key.split(".", 1)
        if not name.endswith("position_ids"):
            inner = name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name
            made[f"{encoder}.transformer.{inner}"] = tensor
    return made


def export(work: Path, target: Path) -> int:
    """Writes the checkpoint to `target` and returns its size in bytes.

    Raises ValueError where a weight does not fit in half precision.
    """
    parts = {
        "model.diffusion_model.": transformer_keys(load(work / "transformer.pt")),
        "first_stage_model.": vae_keys(load(work / "vae.pt")),
        "text_encoders.": text_keys(load(work / "text.pt")),
    }
    return store({prefix + key: tensor for prefix, part in parts.items() for key, tensor in part.items()}, target)
