"""Stage 1: the autoencoder, trained on parts of pictures, and the cache of latents that the transformer learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .clock import Clock, autocast, device, learning_rate, load, save
from .world import Scene, draw, draw_scene, sample_scene

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# SD3's fixed latent scaling, which loaders assume: model space is (z - SHIFT) * SCALE.
SCALE, SHIFT = 1.5305, 0.0609
CHANNELS = 16
# Standard deviation of the posterior in model space: a constant, as the code is spread by noise, not by a KL term.
POSTERIOR_STD = 0.02
# (side, pictures a step) by equal cost. Small parts show many pictures, large ones show the norms whole canvases.
PART_SIZES = ((64, 16), (96, 7), (128, 4))


def build() -> AutoencoderKL:
    """The published autoencoder's architecture at an eighth of its width."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=SCALE,
        shift_factor=SHIFT,
    )


def _start_linear(model: AutoencoderKL) -> None:
    """Closes every residual branch and has the rest keep a signal's size: training starts from a nearly linear code."""
    for name, module in model.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
        elif name.endswith(("conv_in", "conv_out", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")):
            torch.nn.init.orthogonal_(module.weight)
            torch.nn.init.zeros_(module.bias)


def _part(rng: np.random.Generator, side: int) -> Tensor:
    """A square part, [3, side, side] in [-1, 1], of a canvas of 96 to 192 px, most often with some of the subject."""
    scene = sample_scene(rng, **({"subject": "face"} if rng.random() < 0.25 else {}))
    canvas = int(max(side, rng.choice((96, 128, 128, 128, 160, 192))))
    spread = (canvas - side) / 2
    centre = np.array([scene.y, scene.x]) * canvas / 2 + rng.normal(0, 0.2 * side, 2)
    top, left = (int(np.clip(spread + c, 0, 2 * spread)) for c in centre)
    return draw_scene(scene, canvas, canvas, (top, left, side, side)) * 2 - 1


def train(work: Path, minutes: float) -> None:
    """Trains for `minutes`, resuming a stopped run; writes `vae.pt`."""
    on = device()
    model = build().to(on)
    saved = load(work / "vae-run.pt")
    if saved is None:
        torch.manual_seed(0)
        _start_linear(model)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    step, elapsed = 0, 0.0
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, elapsed = saved["step"], saved["elapsed"]
    rng = np.random.default_rng([0, step])
    clock = Clock(minutes, elapsed)
    while clock.progress < 1:
        share = np.array((0.2, 0.4, 0.4)) if clock.progress > 0.7 else np.array((0.8, 0.1, 0.1))
        side, count = PART_SIZES[rng.choice(len(PART_SIZES), p=share)]
        pictures = torch.stack([_part(rng, side) for _ in range(count)]).to(on)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(2e-3, step, clock.progress, warmup=50)
        with autocast(on):
            mean = model.encoder(pictures)[:, :CHANNELS].float()
            # What the transformer makes is never exact: the decoder learns to take a code that is a little off.
            noise = torch.randn_like(mean) * torch.rand(count, 1, 1, 1, device=on) * 0.25 / SCALE
            decoded = model.decoder(mean + noise).float()
        error = decoded - pictures
        loss = error.abs().mean() + 2 * error.square().mean()
        # Holds every channel to the mean and deviation that SD3's fixed scaling takes to 0 and 1.
        deviation, centre = torch.std_mean(mean, (0, 2, 3))
        loss = loss + 0.1 * ((deviation * SCALE - 1).square() + ((centre - SHIFT) * SCALE).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            psnr = -10 * math.log10(error.square().mean().item() / 4)
            print(
                f"vae step {step} {clock.elapsed:.0f} s side {side} loss {loss.item():.4f} psnr {psnr:.1f}", flush=True
            )
        if step % 500 == 0 or clock.progress >= 1:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "elapsed": clock.elapsed,
            }
            save(work / "vae-run.pt", state)
    # The half of the encoder's last layer that says how sure it is: a constant.
    with torch.no_grad():
        model.encoder.conv_out.weight[CHANNELS:] = 0
        model.encoder.conv_out.bias[CHANNELS:] = 2 * math.log(POSTERIOR_STD / SCALE)
    save(work / "vae.pt", model.state_dict())


def load_vae(work: Path) -> AutoencoderKL:
    """The trained autoencoder, in fp32, for use."""
    model = build()
    model.load_state_dict(load(work / "vae.pt"))
    return model.to(device()).eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Latents [B, 16, h / 8, w / 8] in model space of pictures [B, 3, h, w] in [-1, 1]."""
    on = next(vae.parameters()).device
    with autocast(on):
        mean = vae.encoder(pictures.to(on))[:, :CHANNELS].float()
    return (mean - SHIFT) * SCALE


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures [B, 3, h, w] in [-1, 1] of latents in model space, in fp32."""
    on = next(vae.parameters()).device
    return vae.decoder(latents.to(on) / SCALE + SHIFT).clamp(-1, 1).cpu()


def canvases(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a batch: two in three are the native canvas, the others 96 to 192 px, a third not square."""
    if rng.random() < 0.67:
        return 128, 128
    sides = np.arange(96, 193, 16)
    height = int(rng.choice(sides))
    return height, height if rng.random() < 0.67 else int(rng.choice(sides))


def cache(work: Path, pictures: int, batch: int = 32) -> None:
    """Writes `latents-N.pt` files of 2048 pictures each, until there are at least `pictures`: {size: latents, scenes}.

    Seeds are the file's number, so a stopped run goes on where it was and a longer cache keeps its beginning.
    """
    vae = load_vae(work)
    for number in range(-(-pictures // 2048)):
        path = work / f"latents-{number:03d}.pt"
        if path.exists():
            continue
        rng = np.random.default_rng([2, number])
        latents: dict[tuple[int, int], list[Tensor]] = {}
        scenes: dict[tuple[int, int], list[Scene]] = {}
        for _ in range(2048 // batch):
            size = canvases(rng)
            drawn = [sample_scene(rng) for _ in range(batch)]
            latents.setdefault(size, []).append(encode(vae, draw(drawn, *size)).to(torch.float16).cpu())
            scenes.setdefault(size, []).extend(drawn)
        names = {
            size: [(s.subject, s.colour, s.background, s.position) for s in group] for size, group in scenes.items()
        }
        save(path, {"latents": {size: torch.cat(group) for size, group in latents.items()}, "scenes": names})
        print(f"cached {path.name}", flush=True)


def reconstruct(vae: AutoencoderKL, scenes: Sequence[Scene], side: int = 128) -> tuple[Tensor, float]:
    """The scenes' pictures through the autoencoder, [B, 3, side, side] in [-1, 1], and their PSNR in dB."""
    pictures = draw(scenes, side, side)
    decoded = torch.cat([decode(vae, encode(vae, part)) for part in pictures.split(16)])
    return decoded, -10 * math.log10((decoded - pictures).square().mean().item() / 4)
