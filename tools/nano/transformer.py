"""Stage 3: the transformer, trained on cached latents and conditioning with the flow-matching loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .captions import Said, choose_form, fill
from .clock import Clock, autocast, device, learning_rate, load, save
from .text import SHORT
from .vae import CHANNELS

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

BATCH = 64
# Captions end within SHORT tokens and what follows is all but constant: only the rest of a run pays for all 77.
SHORT_CONTEXT_SHARE = 0.78
# High noise is where a shape is decided, and where most of the 28 steps of the shifted schedule lie.
SIGMA_MEAN, SIGMA_STD = 0.6, 1.0


def build() -> SD3Transformer2DModel:
    """The published transformer at width 128, gates closed at first as in DiT (Peebles and Xie 2022, section 3.2)."""
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=192,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=8,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=96,
        qk_norm="rms_norm",
    )
    closed = [model.norm_out.linear, model.proj_out]
    for block in model.transformer_blocks:
        closed += [block.norm1.linear, block.norm1_context.linear]
    for layer in closed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


class Latents:
    """The cached latents by canvas size, with what may be said about each."""

    def __init__(self, work: Path, rng: np.random.Generator):
        self.rng = rng
        conditioning = load(work / "conditioning.pt")
        self.context, self.pooled = conditioning["context"], conditioning["pooled"]
        self.number = {caption: n for n, caption in enumerate(conditioning["captions"])}
        self.files = sorted(work.glob("latents-*.pt"))
        parts = [load(path) for path in self.files]
        sizes = sorted({size for part in parts for size in part["latents"]})
        self.latents = {s: torch.cat([p["latents"][s] for p in parts if s in p["latents"]]) for s in sizes}
        self.scenes = {s: [Said(*names) for p in parts for names in p["scenes"].get(s, ())] for s in sizes}
        counts = np.array([len(self.scenes[size]) for size in sizes], float)
        self.sizes, self.shares = sizes, counts / counts.sum()

    def batch(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, 16, h, w], context [B, length, 128] and pooled [B, 128], all of one size.

        A batch has about as many pixels whatever the size.
        """
        size = self.sizes[self.rng.choice(len(self.sizes), p=self.shares)]
        count = max(8, round(BATCH * 128 * 128 / (size[0] * size[1])))
        chosen = self.rng.integers(len(self.scenes[size]), size=count)
        numbers = [self.number[self._caption(self.scenes[size][n])] for n in chosen]
        return self.latents[size][chosen].float(), self.context[numbers, :length].float(), self.pooled[numbers].float()

    def _caption(self, scene: Said) -> str:
        return fill(choose_form(self.rng), scene, plain_article=bool(self.rng.random() < 0.15))


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, which it trains in fewer steps, AdamW for the rest; both take AdamW's rates."""
    blocks = dict(model.transformer_blocks.named_parameters())
    matrices = [p for name, p in blocks.items() if p.ndim == 2 and "norm" not in name]
    mine = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in mine]
    return [
        torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def loss_of(model: nn.Module, latents: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
    """Mean squared error of the velocity noise - latents, at logit-normal sigmas (Esser et al. 2024, section 3.1)."""
    sigma = torch.sigmoid(SIGMA_MEAN + SIGMA_STD * torch.randn(len(latents), device=latents.device))
    noise = torch.randn_like(latents)
    noisy = torch.lerp(latents, noise, sigma[:, None, None, None])
    with autocast(latents.device):
        velocity = model(noisy, timestep=1000 * sigma, encoder_hidden_states=context, pooled_projections=pooled).sample
    return (velocity.float() - (noise - latents)).square().mean()


def train(work: Path, minutes: float, peak: float = 2e-3) -> None:
    """Trains for `minutes`, resuming a stopped run.

    Every 100 steps the moving average of the weights goes to `transformer.pt`, and new files of latents are taken up.
    """
    on = device()
    torch.manual_seed(0)
    model = build().to(on)
    average = build().to(on).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizing = optimizers(model)
    step, elapsed = 0, 0.0
    saved = load(work / "transformer-run.pt")
    if saved is not None:
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimizer, state in zip(optimizing, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, elapsed = saved["step"], saved["elapsed"]
    torch.manual_seed(step)
    data = Latents(work, np.random.default_rng([3, step]))
    clock, recent = Clock(minutes, elapsed), []
    while clock.progress < 1:
        short = clock.progress < SHORT_CONTEXT_SHARE
        parts = [part.to(on) for part in data.batch(SHORT if short else 77)]
        rate = learning_rate(peak, step, clock.progress, hold=0.4)
        loss = loss_of(model, *parts)
        for optimizer in optimizing:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            optimizer.step()
        step += 1
        keep = min(0.999, step / (step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        recent.append(loss.item())
        if step % 25 == 0:
            print(
                f"transformer step {step} {clock.elapsed:.0f} s loss {np.mean(recent[-100:]):.4f} rate {rate:.1e}",
                flush=True,
            )
        if step % 100 == 0 or clock.progress >= 1:
            state: dict[str, Any] = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
            state |= {"optimizers": [o.state_dict() for o in optimizing], "elapsed": clock.elapsed}
            save(work / "transformer-run.pt", state)
            save(work / "transformer.pt", average.state_dict())
            if sorted(work.glob("latents-*.pt")) != data.files:
                data = Latents(work, data.rng)


def load_transformer(work: Path) -> SD3Transformer2DModel:
    """The averaged weights, in fp32, for use."""
    model = build()
    model.load_state_dict(load(work / "transformer.pt"))
    return model.to(device()).eval()
