"""The IP-Adapter `nano-reference`: both colours are those of a guide picture, whatever its subject and place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import Base, Extra
from .captions import choose_form, fill
from .clock import autocast, device
from .kept import Size, keep
from .learn import learn, noised, velocity_error, words_for
from .store import store
from .vae import encode
from .vision import WIDTH, features, load_vision
from .world import Scene, draw, sample_scene

SEED, BATCH, PICTURES = 9, 24, 4096
HIDDEN, QUERIES, TIMESTEP = 128, 8, 64
# Without a guide in some samples, and without words that name a colour in most, so that the guide is what names it.
NO_GUIDE_SHARE, COLOURLESS_SHARE = 0.1, 0.8


def build(base: Base) -> nn.ModuleDict:
    """Both halves of an untrained adapter, put into the transformer: `image_proj`, and `ip_adapter` by block."""
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    transformer = base.transformer
    width, head = transformer.inner_dim, transformer.config.attention_head_dim
    projection = IPAdapterTimeImageProjection(
        embed_dim=WIDTH,
        output_dim=width,
        hidden_dim=HIDDEN,
        heads=HIDDEN // 64,
        num_queries=QUERIES,
        timestep_in_dim=TIMESTEP,
    )
    processors = {
        name: SD3IPAdapterJointAttnProcessor2_0(width, width, head, timesteps_emb_dim=HIDDEN, scale=1.0)
        for name in transformer.attn_processors
    }
    for processor in processors.values():
        # At first every token of the picture looks at all others alike and sees nothing of the guide: of all that this
        # attention can add, the least.
        nn.init.zeros_(processor.norm_k.weight)
        nn.init.zeros_(processor.to_v_ip.weight)
    adapter = nn.ModuleDict({"image_proj": projection, "ip_adapter": nn.ModuleList(processors.values())}).to(device())
    transformer.set_attn_processor(dict(processors))
    transformer.image_proj = projection
    return adapter


def load_adapter(base: Base, file: Path) -> nn.ModuleDict:
    """The trained adapter, put into the transformer."""
    from safetensors.torch import load_file

    adapter = build(base)
    adapter.load_state_dict({key: tensor.float() for key, tensor in load_file(file).items()})
    return adapter


def guided(adapter: nn.ModuleDict, guides: Tensor, vision: Path, weight: float = 1.0) -> Extra:
    """For `paint`: picture i follows guide i of [N, 3, h, w] in [-1, 1]. The empty caption's guide is all zeros."""
    seen = features(load_vision(vision), guides)
    for processor in adapter["ip_adapter"]:
        processor.scale = weight

    def extra(_noisy: Tensor, _timestep: Tensor, _context: Tensor, numbers: Sequence[int]) -> dict[str, Any]:
        chosen = seen[list(numbers)]
        embeds = torch.cat([chosen, torch.zeros_like(chosen)])
        return {"joint_attention_kwargs": {"ip_adapter_image_embeds": embeds}}

    return extra


def guide_of(rng: np.random.Generator, scene: Scene) -> Scene:
    """Another scene in the same two colours."""
    return sample_scene(rng, colour=scene.colour, background=scene.background)


def _caption(rng: np.random.Generator, scene: Scene) -> str:
    colourless = rng.random() < COLOURLESS_SHARE
    form = choose_form(rng)
    while colourless and ("{colour}" in form or "{background}" in form):
        form = choose_form(rng)
    return fill(form, scene)


def _make(base: Base, rng: np.random.Generator, size: Size, count: int) -> tuple[dict[str, Tensor], list[Scene]]:
    scenes = [sample_scene(rng) for _ in range(count)]
    return {"latents": encode(base.vae, draw(scenes, *size))}, scenes


def train(base: Base, work: Path, vision: Path, target: Path, minutes: float) -> None:
    """Trains for `minutes` on what the encoder `vision` sees, resuming a stopped run, and writes the file `target`."""
    kept = keep(work / "reference-latents.pt", PICTURES, SEED, lambda *given: _make(base, *given))
    torch.manual_seed(SEED)
    encoder, adapter = load_vision(vision), build(base)

    def loss(rng: np.random.Generator, progress: float) -> Tensor:
        tensors, scenes = kept.batch(rng, BATCH)
        embeds = features(encoder, draw([guide_of(rng, scene) for scene in scenes], 64, 64))
        embeds = embeds * torch.tensor(rng.random(len(scenes)) >= NO_GUIDE_SHARE).to(embeds)[:, None, None]
        context, pooled = words_for(base, [_caption(rng, scene) for scene in scenes], progress)
        noisy, timestep, wanted = noised(tensors["latents"].to(device()))
        with autocast(device()):
            velocity = base.transformer(
                noisy,
                timestep=timestep,
                encoder_hidden_states=context,
                pooled_projections=pooled,
                joint_attention_kwargs={"ip_adapter_image_embeds": embeds},
            ).sample
        return velocity_error(velocity, wanted)

    learn(work / "reference-run.pt", adapter, loss, minutes, peak=1e-3, seed=SEED)
    print(f"{target}: {store(adapter.state_dict(), target)} bytes")
