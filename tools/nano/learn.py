"""The training loop of the add-ons: some parameters, a loss, a time limit, checkpoints that a stopped run resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .base import Base
from .captions import choose_form, fill
from .clock import Clock, device, learning_rate, load, save
from .text import SHORT
from .transformer import SHORT_CONTEXT_SHARE, SIGMA_MEAN, SIGMA_STD
from .world import Scene

Loss = Callable[[np.random.Generator, float], Tensor]
"""(random numbers, share of the time that is over) -> a scalar."""


def learn(run: Path, trained: nn.Module, loss_of: Loss, minutes: float, peak: float, seed: int) -> None:
    """Trains what of `trained` needs gradients for `minutes` and leaves the moving average of its weights in it.

    `run` is the checkpoint that a stopped run goes on from; `peak` is AdamW's learning rate.
    """
    parameters = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    step, elapsed, saved = 0, 0.0, load(run)
    if saved is not None:
        trained.load_state_dict(saved["weights"], strict=False)
        average = {name: value.to(device()) for name, value in saved["average"].items()}
        optimizer.load_state_dict(saved["optimizer"])
        step, elapsed = saved["step"], saved["elapsed"]
    torch.manual_seed(1000 * seed + step)
    rng, clock, recent = np.random.default_rng([seed, step]), Clock(minutes, elapsed), []
    while clock.progress < 1:
        for settings in optimizer.param_groups:
            settings["lr"] = learning_rate(peak, step, clock.progress, warmup=50, hold=0.4)
        loss = loss_of(rng, clock.progress)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(parameters.values()), max(0.01, 9 / (step + 9)))
        recent.append(loss.item())
        if step % 25 == 0:
            print(f"{run.stem} step {step} {clock.elapsed:.0f} s loss {np.mean(recent[-100:]):.4f}", flush=True)
        if step % 100 == 0 or clock.progress >= 1:
            weights = {name: p.detach() for name, p in parameters.items()}
            state = {"weights": weights, "average": average, "optimizer": optimizer.state_dict()}
            save(run, state | {"step": step, "elapsed": clock.elapsed})
    trained.load_state_dict(average, strict=False)


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption at random of all forms, the empty one among them; none that names a position if `scene` names none."""
    form = choose_form(rng)
    while "{position}" in form and not scene.position:
        form = choose_form(rng)
    return fill(form, scene, plain_article=bool(rng.random() < 0.15))


def words_for(base: Base, captions: list[str], progress: float) -> tuple[Tensor, Tensor]:
    """Context and pooled; only the end of a training pays for all 77 tokens, of which the last are all but constant."""
    parts = base.words(captions, SHORT if progress < SHORT_CONTEXT_SHARE else 77)
    return parts[0].to(device()), parts[1].to(device())


def noised(latents: Tensor, mean: float = SIGMA_MEAN) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents [B, 16, h, w], their timesteps [B] of 1000, and the velocity noise - latents that leads there.

    `mean` is of the logit of the share of noise.
    """
    sigma = torch.sigmoid(mean + SIGMA_STD * torch.randn(len(latents), device=latents.device))
    noise = torch.randn_like(latents)
    return torch.lerp(latents, noise, sigma[:, None, None, None]), 1000 * sigma, noise - latents


def velocity_error(velocity: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of the velocity, in fp32."""
    return (velocity.float() - wanted).square().mean()
