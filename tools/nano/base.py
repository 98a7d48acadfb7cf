"""The finished sd3-nano, read from its file by the pack's own loader: what the add-ons learn to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tools.pack import import_pack

from . import transformer, vae
from .clock import autocast, device

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

BATCH = 32


class Words:
    """The conditioning of captions, each encoded once."""

    def __init__(self, encoders: Any):
        self._encoders = encoders
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], length: int = 77) -> tuple[Tensor, Tensor]:
        """Context [B, length, 128] and pooled [B, 128], fp32 on the CPU."""
        missing = list(dict.fromkeys(c for c in captions if c not in self._known))
        for caption, made in zip(missing, self._encoders.encode(missing), strict=True):
            self._known[caption] = made.context[0].half(), made.pooled[0].half()
        known = [self._known[caption] for caption in captions]
        return torch.stack([c[:length] for c, _ in known]).float(), torch.stack([p for _, p in known]).float()


@dataclass
class Base:
    """The frozen model in fp32."""

    transformer: SD3Transformer2DModel
    vae: AutoencoderKL
    words: Words


def open_base(asset: Path, tokenizer: Path) -> Base:
    """sd3-nano from its published file; `tokenizer` is the folder of CLIP's vocabulary."""
    import_pack()
    from sd3_local.pipelines.loading import ModelFiles
    from sd3_local.pipelines.model import Model
    from sd3_local.pipelines.placement import LocalPlacement
    from sd3_local.pipelines.text import TokenizerFiles

    placement = LocalPlacement(torch.device("cpu"), torch.float32)
    model = Model(ModelFiles(asset), TokenizerFiles(tokenizer, tokenizer), placement)
    # The loader's modules work straight from the file; training wants plain ones.
    plain = transformer.build(), vae.build()
    for module, loaded in zip(plain, (model.transformer(), model.vae()), strict=True):
        module.load_state_dict(loaded.module.state_dict())
        module.to(device()).requires_grad_(False).eval()
    return Base(*plain, Words(model.text_encoders()))


Extra = Callable[[Tensor, Tensor, Tensor, Sequence[int]], dict[str, Any]]
"""(noisy [2 B, 16, h, w], timesteps [2 B], context [2 B, 77, 128], numbers of the B pictures) -> more arguments of the
transformer. The first half of the batch has the captions, the second the empty one.
"""


@torch.no_grad()
def paint(
    base: Base,
    captions: Sequence[str],
    extra: Extra | None = None,
    guidance: float = 5.0,
    steps: int = 28,
    size: tuple[int, int] = (128, 128),
) -> Tensor:
    """Pictures [B, 3, h, w] in [-1, 1] of `captions`, in Euler steps at shift 3; picture i has seed i."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    on = device()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    made = []
    for first in range(0, len(captions), BATCH):
        chosen = range(first, min(first + BATCH, len(captions)))
        shape = (vae.CHANNELS, size[0] // 8, size[1] // 8)
        latents = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in chosen]).to(on)
        asked = [captions[n] for n in chosen] + [""] * len(chosen)
        context, pooled = (part.to(on) for part in base.words(asked))
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            both, times = torch.cat([latents] * 2), timestep.expand(len(asked)).to(on)
            with autocast(on):
                more = extra(both, times, context, chosen) if extra else {}
                velocity = base.transformer(
                    both, timestep=times, encoder_hidden_states=context, pooled_projections=pooled, **more
                ).sample.float()
            wanted, empty = velocity.chunk(2)
            latents = scheduler.step(empty + guidance * (wanted - empty), timestep, latents).prev_sample
        made.append(vae.decode(base.vae, latents))
    return torch.cat(made)
