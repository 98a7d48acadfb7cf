"""The LoRA `nano-stripes`: horizontal stripes on the subject, the deeper the higher its weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .base import Base
from .clock import autocast, device
from .drawings import draw_striped
from .kept import Size, keep
from .learn import caption, learn, noised, velocity_error, words_for
from .store import store
from .vae import encode
from .world import Scene, draw, sample_scene

SEED, RANK, BATCH, PICTURES = 4, 16, 32, 3072
# Linear layers of a transformer block that see the picture's tokens.
LAYERS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "ff.net.2")
# What pictures show at which weight, as shares of the way from the plain latents to the striped ones. Most are of
# weight 1; the others teach that less weight means less and that -1 to 0 do not stripe. The autoencoder shows faint
# stripes hardly at all, and a model's are fainter than what it learns from, so both ways are longer than need be.
SHARES = {0.0: 0.0, 0.5: 0.8, 1.0: 1.25}
CHANCES = (0.2, 0.15, 0.65)
# Stripes are decided later than shapes, at less noise.
SIGMA_MEAN = 0.0


class LoraLinear(nn.Module):
    """A frozen linear layer and a low-rank change of it, taken `weight` times."""

    def __init__(self, inner: nn.Linear, rank: int):
        super().__init__()
        self.inner, self.weight = inner, 1.0
        self.lora_A = nn.Linear(inner.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, inner.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.weight * self.lora_B(self.lora_A(x))


class Lora(nn.Module):
    """The changes of all layers, by diffusers' names of the layers; making it puts them into `transformer`."""

    def __init__(self, transformer: nn.Module, rank: int = RANK):
        super().__init__()
        self._layers: dict[str, LoraLinear] = {}
        for number, block in enumerate(transformer.transformer_blocks):
            for name in LAYERS:
                layer = LoraLinear(block.get_submodule(name), rank).to(device())
                block.set_submodule(name, layer)
                self._layers[f"transformer_blocks.{number}.{name}"] = layer
        self.changes = nn.ModuleList(nn.ModuleList([layer.lora_A, layer.lora_B]) for layer in self._layers.values())

    @classmethod
    def load(cls, transformer: nn.Module, file: Path) -> Lora:
        """That of a file, at weight 1."""
        from safetensors.torch import load_file

        tensors = load_file(file)
        lora = cls(transformer, rank=next(t.shape[0] for key, t in tensors.items() if key.endswith("lora_A.weight")))
        with torch.no_grad():
            for key, parameter in lora.keys().items():
                parameter.copy_(tensors[key])
        return lora

    def set_weight(self, weight: float) -> None:
        """How often the change is taken: 0 is the model as it was."""
        for layer in self._layers.values():
            layer.weight = weight

    def keys(self) -> dict[str, Tensor]:
        """Its weights in the layout of diffusers and PEFT. Without alpha keys the scale is 1."""
        return {
            f"transformer.{name}.{part}.weight": getattr(layer, part).weight
            for name, layer in self._layers.items()
            for part in ("lora_A", "lora_B")
        }


def _make(base: Base, rng: np.random.Generator, size: Size, count: int) -> tuple[dict[str, Tensor], list[Scene]]:
    scenes = [sample_scene(rng) for _ in range(count)]
    plain = encode(base.vae, draw(scenes, *size))
    striped = encode(base.vae, torch.stack([draw_striped(scene, *size) for scene in scenes]) * 2 - 1)
    return {"plain": plain, "striped": striped}, scenes


def train(base: Base, work: Path, target: Path, minutes: float) -> None:
    """Trains for `minutes`, resuming a stopped run, and writes the file `target`."""
    kept = keep(work / "stripes-latents.pt", PICTURES, SEED, lambda *given: _make(base, *given))
    lora = Lora(base.transformer)

    def loss(rng: np.random.Generator, progress: float) -> Tensor:
        tensors, scenes = kept.batch(rng, BATCH)
        weight = rng.choice(list(SHARES), p=CHANCES, size=len(scenes))
        share = torch.tensor([SHARES[w] for w in weight]).to(tensors["plain"])[:, None, None, None]
        latents = torch.lerp(tensors["plain"], tensors["striped"], share)
        weight = torch.tensor(np.where(weight == 0, -rng.random(len(scenes)), weight)).float()
        lora.set_weight(weight.to(device())[:, None, None])
        context, pooled = words_for(base, [caption(rng, scene) for scene in scenes], progress)
        noisy, timestep, wanted = noised(latents.to(device()), SIGMA_MEAN)
        with autocast(device()):
            velocity = base.transformer(
                noisy, timestep=timestep, encoder_hidden_states=context, pooled_projections=pooled
            ).sample
        return velocity_error(velocity, wanted)

    learn(work / "stripes-run.pt", lora, loss, minutes, peak=2e-3, seed=SEED)
    print(f"{target}: {store(lora.keys(), target)} bytes")
