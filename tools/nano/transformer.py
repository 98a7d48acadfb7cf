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
SHORT_CONTEXT_SHARE = 0.86
# Subjects with more to them than an outline are shown more often, and so is the native canvas.
OFTEN = {"face": 2.5, "cross": 1.5}
NATIVE_SHARE = 0.8
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
    """The cached latents by canvas size, with what may be said about each, in batches of `pictures` native canvases."""

    def __init__(self, work: Path, rng: np.random.Generator, pictures: int):
        self.rng, self.pictures = rng, pictures
        conditioning = load(work / "conditioning.pt")
        self.context, self.pooled = conditioning["context"], conditioning["pooled"]
        self.number = {caption: n for n, caption in enumerate(conditioning["captions"])}
        self.files = sorted(work.glob("latents-*.pt"))
        parts = [load(path) for path in self.files]
        sizes = sorted({size for part in parts for size in part["latents"]})
        self.latents = {s: torch.cat([p["latents"][s] for p in parts if s in p["latents"]]) for s in sizes}
        self.scenes = {s: [Said(*names) for p in parts for names in p["scenes"].get(s, ())] for s in sizes}
        counts = np.array([len(self.scenes[size]) * (size != (128, 128)) for size in sizes], float)
        native = np.array([size == (128, 128) for size in sizes])
        self.sizes, self.shares = sizes, np.where(native, NATIVE_SHARE, (1 - NATIVE_SHARE) * counts / counts.sum())
        weights = {size: np.array([OFTEN.get(str(s.subject), 1.0) for s in self.scenes[size]]) for size in sizes}
        self.chances = {size: weight / weight.sum() for size, weight in weights.items()}

    def batch(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, 16, h, w], context [B, length, 128] and pooled [B, 128], all of one size.

        A batch has about as many pixels whatever the size.
        """
        size = self.sizes[self.rng.choice(len(self.sizes), p=self.shares)]
        count = max(4, round(self.pictures * 128 * 128 / (size[0] * size[1])))
        chosen = self.rng.choice(len(self.scenes[size]), size=count, p=self.chances[size])
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
    On a CPU, one process for each of torch's threads: where other programs take their turns, threads that wait for
    each other after every operation lose twice the time of processes that meet once a step.
    """
    if device().type == "cuda":
        _worker(0, 1, work, minutes, peak)
    else:
        world = torch.get_num_threads()
        (work / "meeting").unlink(missing_ok=True)
        torch.multiprocessing.spawn(_worker, (world, work, minutes, peak), nprocs=world)


class Group:
    """The processes of one run, of which each has its share of the batch."""

    def __init__(self, rank: int, world: int, work: Path):
        self.world = world
        if world > 1:
            torch.set_num_threads(1)
            meeting = f"file://{work.resolve() / 'meeting'}"
            torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)

    def average(self, parameters: list[nn.Parameter], *numbers: float) -> list[float]:
        """Averages the gradients over all processes, in place, and returns the averages of `numbers`."""
        if self.world == 1:
            return list(numbers)
        gradients = [p.grad for p in parameters]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor(numbers)])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        sizes = [g.numel() for g in gradients]
        for gradient, mean in zip(gradients, flat[: sum(sizes)].split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return flat[sum(sizes) :].tolist()


def _worker(rank: int, world: int, work: Path, minutes: float, peak: float) -> None:
    group = Group(rank, world, work)
    on = device()
    torch.manual_seed(0)
    model = build().to(on)
    average = build().to(on).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizing = optimizers(model)
    parameters = list(model.parameters())
    step, elapsed = 0, 0.0
    saved = load(work / "transformer-run.pt")
    if saved is not None:
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimizer, state in zip(optimizing, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, elapsed = saved["step"], saved["elapsed"]
    torch.manual_seed(1000 * step + rank)
    data = Latents(work, np.random.default_rng([3, step, rank]), BATCH // world)
    clock, recent = Clock(minutes, elapsed), []
    # The processes act on their average of the time, so that all of them take the same steps.
    progress = clock.progress
    while progress < 1:
        parts = [part.to(on) for part in data.batch(SHORT if progress < SHORT_CONTEXT_SHARE else 77)]
        rate = learning_rate(peak, step, progress, warmup=100, hold=0.4)
        loss = loss_of(model, *parts)
        for optimizer in optimizing:
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            optimizer.zero_grad()
        loss.backward()
        mean_loss, progress = group.average(parameters, loss.item(), clock.progress)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizing:
            optimizer.step()
        step += 1
        if rank == 0:
            keep = min(0.995, step / (step + 9))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), parameters, 1 - keep)
            recent.append(mean_loss)
            if step % 25 == 0:
                seconds, mean = clock.elapsed, np.mean(recent[-100:])
                print(f"transformer step {step} {seconds:.0f} s loss {mean:.4f} rate {rate:.1e}", flush=True)
            if step % 100 == 0 or progress >= 1:
                state: dict[str, Any] = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
                state |= {"optimizers": [o.state_dict() for o in optimizing], "elapsed": clock.elapsed}
                save(work / "transformer-run.pt", state)
                save(work / "transformer.pt", average.state_dict())
        if step % 100 == 0 and sorted(work.glob("latents-*.pt")) != data.files:
            data = Latents(work, data.rng, BATCH // world)


def load_transformer(work: Path) -> SD3Transformer2DModel:
    """The averaged weights, in fp32, for use."""
    model = build()
    model.load_state_dict(load(work / "transformer.pt"))
    return model.to(device()).eval()
