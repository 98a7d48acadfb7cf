"""Samples the trained parts through a plain loop of diffusers' own classes, and has the judge look at the pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.judge import Verdict, judge, prompts

from .clock import autocast, device
from .text import Tokens, conditioning, load_encoders
from .transformer import load_transformer
from .vae import CHANNELS, decode, load_vae, reconstruct
from .world import sample_scene

ATTRIBUTES = ("subject", "colour", "background", "position", "right")


@torch.no_grad()
def sample(
    work: Path,
    tokenizer: Path,
    captions: Sequence[str],
    guidance: float = 5.0,
    steps: int = 28,
    size: tuple[int, int] = (128, 128),
) -> Tensor:
    """Pictures [B, 3, h, w] in [-1, 1] of `captions`, guided away from the empty one; picture i has seed i."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    on = device()
    context, pooled = (part.to(on) for part in conditioning(load_encoders(work), Tokens(tokenizer), [*captions, ""]))
    transformer, vae = load_transformer(work), load_vae(work)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    made = []
    for first in range(0, len(captions), 32):
        chosen = range(first, min(first + 32, len(captions)))
        shape = (CHANNELS, size[0] // 8, size[1] // 8)
        latents = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in chosen]).to(on)
        both = [*chosen, *[len(captions)] * len(chosen)]
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            with autocast(on):
                velocity = transformer(
                    torch.cat([latents] * 2),
                    timestep=timestep.expand(len(both)).to(on),
                    encoder_hidden_states=context[both],
                    pooled_projections=pooled[both],
                ).sample.float()
            wanted, empty = velocity.chunk(2)
            latents = scheduler.step(empty + guidance * (wanted - empty), timestep, latents).prev_sample
        made.append(decode(vae, latents))
    return torch.cat(made)


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """A contact sheet of pictures [B, 3, h, w] in [-1, 1]."""
    rows = math.ceil(len(pictures) / columns)
    _, channels, height, width = pictures.shape
    page = torch.zeros(rows * columns, channels, height, width)
    page[: len(pictures)] = (pictures + 1) / 2
    page = page.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return Image.fromarray((page.reshape(rows * height, columns * width, channels) * 255).round().byte().numpy())


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of pictures in which each attribute, and all four, are right."""
    return {name: sum(getattr(v, name) for v in verdicts) / len(verdicts) for name in ATTRIBUTES}


def measure(work: Path, tokenizer: Path, count: int, guidance: float, seed: int = 0) -> dict[str, float]:
    """Judges `count` pictures of full captions; leaves a contact sheet with the wrong ones first in `judged.png`."""
    asked = list(prompts(count, seed))
    started = time.monotonic()
    pictures = sample(work, tokenizer, asked, guidance)
    verdicts = [judge((picture + 1) / 2, prompt) for picture, prompt in zip(pictures, asked, strict=True)]
    order = sorted(range(count), key=lambda n: verdicts[n].right)[:64]
    sheet(pictures[order], 8).save(work / "judged.png")
    for n in order[:16]:
        if not verdicts[n].right:
            print(f"  {asked[n]}: {verdicts[n].seen} iou {verdicts[n].iou:.2f}")
    made = shares(verdicts)
    print(f"judged {count} at CFG {guidance} in {time.monotonic() - started:.0f} s: {made}", flush=True)
    return made


def measure_vae(work: Path, count: int) -> dict[str, float]:
    """Judges reconstructions and prints their PSNR; leaves a contact sheet in `reconstructed.png`."""
    rng = np.random.default_rng([7, 1000])
    scenes = [sample_scene(rng) for _ in range(count)]
    pictures, psnr = reconstruct(load_vae(work), scenes)
    made = shares([judge((picture + 1) / 2, scene) for picture, scene in zip(pictures, scenes, strict=True)])
    sheet(pictures[:32], 8).save(work / "reconstructed.png")
    print(f"reconstructed {count} at {psnr:.1f} dB: {made}", flush=True)
    return made
