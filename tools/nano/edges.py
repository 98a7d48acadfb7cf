"""The ControlNet `nano-edges`: the subject takes the outline that a white-on-black drawing shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .base import Base, Extra
from .clock import autocast, device
from .drawings import draw_edges
from .kept import Size, keep
from .learn import caption, learn, noised, velocity_error, words_for
from .store import store
from .transformer import OFTEN
from .vae import SCALE, SHIFT, encode
from .world import SUBJECTS, Scene, draw, sample_scene

if TYPE_CHECKING:
    from diffusers import SD3ControlNetModel

SEED, LAYERS, BATCH, PICTURES = 5, 3, 24, 5120
# Where an outline is given, it also leads where captions never put a subject, and to sizes they never name.
WIDE_SHARE, WIDE_PLACE, WIDE_RADIUS = 0.25, 0.5, (0.22, 0.5)


def build(base: Base) -> SD3ControlNetModel:
    """The published architecture on the transformer's first blocks, without any influence yet."""
    from diffusers import SD3ControlNetModel

    source = base.transformer
    config = {**source.config, "num_layers": LAYERS, "extra_conditioning_channels": 0}
    net = SD3ControlNetModel.from_config(config)
    for name in ("pos_embed", "time_text_embed", "context_embedder"):
        getattr(net, name).load_state_dict(getattr(source, name).state_dict())
    net.transformer_blocks.load_state_dict(source.transformer_blocks[:LAYERS].state_dict())
    return net.to(device())


def load_net(base: Base, file: Path) -> SD3ControlNetModel:
    """The trained net in fp32."""
    from safetensors.torch import load_file

    net = build(base)
    net.load_state_dict({key: tensor.float() for key, tensor in load_file(file).items()})
    return net.requires_grad_(False).eval()


def hint_latents(base: Base, hints: Tensor) -> Tensor:
    """Latents of edge drawings [B, 3, h, w] in [0, 1]: scaled, but not shifted, as published nets of this kind want."""
    return encode(base.vae, hints * 2 - 1) + SHIFT * SCALE


def residuals(
    net: SD3ControlNetModel, noisy: Tensor, timestep: Tensor, context: Tensor, hint: Tensor
) -> Sequence[Tensor]:
    """What the net adds to the transformer's tokens, by layer. It never sees the pooled text."""
    pooled = noisy.new_zeros(len(noisy), net.config.pooled_projection_dim)
    return net(
        noisy, controlnet_cond=hint, encoder_hidden_states=context, pooled_projections=pooled, timestep=timestep
    ).controlnet_block_samples


def controlled(base: Base, net: SD3ControlNetModel, hints: Tensor, weight: float = 1.0) -> Extra:
    """For `paint`: picture i follows hint i of [N, 3, h, w] in [0, 1]."""
    latents = hint_latents(base, hints)

    def extra(noisy: Tensor, timestep: Tensor, context: Tensor, numbers: Sequence[int]) -> dict[str, list[Tensor]]:
        hint = latents[list(numbers)].repeat(2, 1, 1, 1)
        made = residuals(net, noisy, timestep, context, hint)
        return {"block_controlnet_hidden_states": [weight * part for part in made]}

    return extra


def _scene(rng: np.random.Generator) -> Scene:
    """A scene of the world or, sometimes, one whose subject lies anywhere, which then has no named position."""
    subjects = np.array([OFTEN.get(s, 1.0) for s in SUBJECTS])
    scene = sample_scene(rng, subject=str(rng.choice(SUBJECTS, p=subjects / subjects.sum())))
    if rng.random() >= WIDE_SHARE:
        return scene
    x, y = rng.uniform(-WIDE_PLACE, WIDE_PLACE, size=2)
    return replace(scene, x=float(x), y=float(y), radius=float(rng.uniform(*WIDE_RADIUS)), position="")


def _make(base: Base, rng: np.random.Generator, size: Size, count: int) -> tuple[dict[str, Tensor], list[Scene]]:
    scenes = [_scene(rng) for _ in range(count)]
    hints = torch.stack([draw_edges(scene, *size) for scene in scenes])
    return {"latents": encode(base.vae, draw(scenes, *size)), "hint": hint_latents(base, hints)}, scenes


def train(base: Base, work: Path, target: Path, minutes: float) -> None:
    """Trains for `minutes`, resuming a stopped run, and writes the file `target`."""
    kept = keep(work / "edges-latents.pt", PICTURES, SEED, lambda *given: _make(base, *given))
    net = build(base)

    def loss(rng: np.random.Generator, progress: float) -> Tensor:
        tensors, scenes = kept.batch(rng, BATCH)
        context, pooled = words_for(base, [caption(rng, scene) for scene in scenes], progress)
        noisy, timestep, wanted = noised(tensors["latents"].to(device()))
        with autocast(device()):
            made = residuals(net, noisy, timestep, context, tensors["hint"].to(device()))
            velocity = base.transformer(
                noisy,
                timestep=timestep,
                encoder_hidden_states=context,
                pooled_projections=pooled,
                block_controlnet_hidden_states=list(made),
            ).sample
        return velocity_error(velocity, wanted)

    learn(work / "edges-run.pt", net, loss, minutes, peak=1e-3, seed=SEED)
    print(f"{target}: {store(net.state_dict(), target)} bytes")
