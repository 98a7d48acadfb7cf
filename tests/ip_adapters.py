"""IP-Adapters of diffusers' own classes and SigLIPs of transformers', tiny and random, and their files."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.ip_adapter import IPAdapterFile
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Monitor, Unwatched

from tests.checkpoints import Shapes, write_tensors
from tests.engines import request

# InstantX's names of what a layer of the resampler has, as in the published ip-adapter.bin.
ORIGINAL = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_kv": "0.to_kv",
    "attn.to_out.0": "0.to_out",
    "adaln_norm": "1.0",
    "ff.net.0.proj": "1.1",
    "ff.net.2": "1.3",
    "adaln_proj": "2.1",
}
EMBED = 144
"""Features of the tiny encoder's tokens: two heads of 72."""
SIDE = 64
"""Pixels a side that the tiny encoder sees."""

Halves = dict[str, dict[str, torch.Tensor]]


def make_adapter(blocks: int, width: int, *, seed: int = 0, hidden: int = 64, queries: int = 4) -> Halves:
    """The two halves of an adapter with a strong effect, under diffusers' names; four layers, as diffusers assumes."""
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    projection = IPAdapterTimeImageProjection(EMBED, width, hidden, 4, 64, hidden // 64, queries, 4, 32)
    processors = torch.nn.ModuleList(
        SD3IPAdapterJointAttnProcessor2_0(width, width, 64, timesteps_emb_dim=hidden) for _ in range(blocks)
    )
    randomise(projection, seed)
    randomise(processors, seed + 1)
    return {"image_proj": projection.state_dict(), "ip_adapter": processors.state_dict()}


def original(halves: Halves) -> Halves:
    """The same under InstantX's names."""
    projection = {}
    for name, value in halves["image_proj"].items():
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            part, end = rest.rsplit(".", 1)
            name = f"layers.{number}.{ORIGINAL[part]}.{end}"
        projection[name] = value
    return {**halves, "image_proj": projection}


def write_adapter(path: Path, halves: Halves, dtype: torch.dtype = torch.float32) -> Path:
    """A safetensors file, or for `.bin` the pickle of two dicts that InstantX published."""
    halves = {
        half: OrderedDict((name, value.to(dtype)) for name, value in part.items()) for half, part in halves.items()
    }
    if path.suffix == ".bin":
        torch.save(halves, path)
        return path
    return write_tensors(
        path, {f"{half}.{name}": value for half, part in halves.items() for name, value in part.items()}
    )


def make_vision(*, layers: int = 3, side: int = SIDE, patch: int = 14, seed: int = 5) -> Any:
    """A SiglipVisionModel; its patches leave the edge of a picture over, as those of the published 384 px do."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=EMBED,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=EMBED // 72,
        image_size=side,
        patch_size=patch,
    )
    module = SiglipVisionModel(config)
    randomise(module, seed)
    return module.requires_grad_(False).eval()


def vision_state(module: Any) -> dict[str, torch.Tensor]:
    """Its tensors as published files name them."""
    prefix = "vision_model."
    return {prefix + name.removeprefix(prefix): value for name, value in module.state_dict().items()}


def write_vision(path: Path, module: Any, dtype: torch.dtype = torch.float32) -> Path:
    return write_tensors(path, {name: value.to(dtype) for name, value in vision_state(module).items()})


def published_adapter(
    blocks: int = 38, width: int = 2432, embed: int = 1152, names: dict[str, str] | None = None
) -> Shapes:
    """The names and shapes of InstantX's SD3.5-Large adapter; `names` None are its own."""

    def layer(name: str, part: str) -> str:
        return f"{name}.{part if names else ORIGINAL[part]}"

    hidden = 1280
    shapes: Shapes = {
        "image_proj.latents": (1, 64, hidden),
        **_linear("image_proj.time_embedding.linear_1", hidden, 320),
        **_linear("image_proj.time_embedding.linear_2", hidden, hidden),
        **_linear("image_proj.proj_in", hidden, embed),
        **_linear("image_proj.proj_out", width, hidden),
        "image_proj.norm_out.weight": (width,),
        "image_proj.norm_out.bias": (width,),
    }
    for number in range(4):
        name = f"image_proj.layers.{number}"
        for part in ("ln0", "ln1", "adaln_norm"):
            shapes |= {f"{layer(name, part)}.{end}": (hidden,) for end in ("weight", "bias")}
        shapes[f"{layer(name, 'attn.to_q')}.weight"] = (hidden, hidden)
        shapes[f"{layer(name, 'attn.to_kv')}.weight"] = (2 * hidden, hidden)
        shapes[f"{layer(name, 'attn.to_out.0')}.weight"] = (hidden, hidden)
        shapes[f"{layer(name, 'ff.net.0.proj')}.weight"] = (4 * hidden, hidden)
        shapes[f"{layer(name, 'ff.net.2')}.weight"] = (hidden, 4 * hidden)
        shapes |= _linear(layer(name, "adaln_proj"), 4 * hidden, hidden)
    for number in range(blocks):
        name = f"ip_adapter.{number}"
        shapes |= _linear(f"{name}.norm_ip.linear", 2 * width, hidden)
        shapes |= {f"{name}.{each}.weight": (width, width) for each in ("to_k_ip", "to_v_ip")}
        shapes |= {f"{name}.{norm}.weight": (64,) for norm in ("norm_q", "norm_k", "norm_ip_k")}
    return shapes


def published_vision(
    width: int = 1152, layers: int = 27, feed: int = 4304, patch: int = 14, tokens: int = 729
) -> Shapes:
    """The names and shapes of sigclip_vision_patch14_384.safetensors."""
    shapes: Shapes = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "vision_model.embeddings.position_embedding.weight": (tokens, width),
        "vision_model.head.probe": (1, 1, width),
    }
    for norm in ("vision_model.post_layernorm", "vision_model.head.layernorm"):
        shapes |= {f"{norm}.{end}": (width,) for end in ("weight", "bias")}
    for number in range(layers):
        name = f"vision_model.encoder.layers.{number}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{name}.{norm}.{end}": (width,) for end in ("weight", "bias")}
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{name}.self_attn.{part}", width, width)
        shapes |= _linear(f"{name}.mlp.fc1", feed, width) | _linear(f"{name}.mlp.fc2", width, feed)
    return shapes


def guide(seed: int = 0, width: int = SIDE, height: int = SIDE) -> torch.Tensor:
    """A picture of the API's kind, [1, height, width, 3], of 256 shades."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (1, height, width, 3)).astype(np.float32) / 255)


@dataclass
class Entry:
    """One adapter of a request."""

    file: IPAdapterFile
    fields: dict[str, Any] = field(default_factory=dict)
    guides: Sequence[torch.Tensor] = field(default_factory=lambda: [guide()])


def asked(entries: Sequence[Entry], **fields: Any) -> tuple[Any, Materials]:
    """A small request with these adapters, and what it names."""
    pictures = {f"guide {i} {j}": each for i, entry in enumerate(entries) for j, each in enumerate(entry.guides)}
    wanted = [
        {"model": f"ip {i}", "guideImages": [f"guide {i} {j}" for j in range(len(entry.guides))], **entry.fields}
        for i, entry in enumerate(entries)
    ]
    given = {"width": 96, "height": 64, "steps": 3, "negativePrompt": "blue", "CFGScale": 4.5, **fields}
    materials = Materials(pictures=pictures, ip_adapters={f"ip {i}": entry.file for i, entry in enumerate(entries)})
    return request(**given, ipAdapters=wanted or None), materials


def run(model: Model, entries: Sequence[Entry], monitor: Monitor | None = None, **fields: Any) -> Result:
    wanted, materials = asked(entries, **fields)
    return generate(wanted, model, monitor or Unwatched(), materials)


def latents(result: Result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the size of `theirs`."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Random weights under which signals keep their size, and every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * value + (0.0 if name.endswith("bias") else 1.0))
            elif "position_embedding" in name or name.endswith(("latents", "probe")):
                parameter.copy_(value)
            else:
                parameter.copy_(value / math.sqrt(math.prod(parameter.shape[1:])))


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
