"""ControlNets of diffusers' own class, tiny and random, and their files in the published layouts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints import write_tensors

# Stability's names for what diffusers calls otherwise, inside a block.
_ORIGINAL = {
    "norm1.linear": "adaLN_modulation.1",
    "attn.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}


def make_net(
    layers: int = 2,
    *,
    width: int = 256,
    context: int | None = 4096,
    pooled: int = 2048,
    table: int = 32,
    extra: int = 0,
    dual: tuple[int, ...] = (),
    rms: bool = False,
    seed: int = 0,
) -> Any:
    """An SD3ControlNetModel with a strong effect; `context` None is one of single blocks, as Stability's."""
    from diffusers import SD3ControlNetModel

    joint = context is not None
    net = SD3ControlNetModel(
        num_layers=layers,
        num_attention_heads=width // 64,
        joint_attention_dim=context,
        caption_projection_dim=width,
        pooled_projection_dim=pooled,
        pos_embed_max_size=table if joint else None,
        pos_embed_type="sincos" if joint else None,
        use_pos_embed=joint,
        extra_conditioning_channels=extra,
        dual_attention_layers=dual,
        qk_norm="rms_norm" if rms else None,
        force_zeros_for_pooled_projection=joint,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(value / math.sqrt(math.prod(parameter.shape[1:])))
            else:
                parameter.add_(0.1 * value)
    return net.requires_grad_(False).eval()


def single_net(layers: int = 2, **options: Any) -> Any:
    """One of single blocks."""
    return make_net(layers, context=None, **options)


def write_net(path: Path, net: Any, dtype: torch.dtype = torch.float32) -> Path:
    """The net in diffusers' layout."""
    return write_tensors(path, {name: value.to(dtype) for name, value in net.state_dict().items()})


def write_original(path: Path, net: Any, control_type: int | None = None) -> Path:
    """A net of single blocks as Stability published them."""
    stored = net.state_dict()
    content = {name: value for name, value in stored.items() if not name.startswith("transformer_blocks.")}
    for layer in range(len(net.transformer_blocks)):
        block = f"transformer_blocks.{layer}"
        for end in ("weight", "bias"):
            parts = [stored[f"{block}.attn.to_{each}.{end}"] for each in "qkv"]
            content[f"{block}.attn.qkv.{end}"] = torch.cat(parts)
            for ours, theirs in _ORIGINAL.items():
                content[f"{block}.{theirs}.{end}"] = stored[f"{block}.{ours}.{end}"]
    if control_type is not None:
        content["control_type"] = torch.tensor([float(control_type)])
    return write_tensors(path, content)
