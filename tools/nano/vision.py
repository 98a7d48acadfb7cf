"""The picture encoder `nano-vision`, a SigLIP that learned to say what a picture of this world shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .clock import autocast, device
from .learn import learn
from .store import store
from .text import ANSWERS, labels
from .world import Scene, draw, sample_scene

if TYPE_CHECKING:
    from transformers import SiglipVisionModel

SEED, BATCH = 6, 48
# Heads of 72, as so400m has: a loader that sees only shapes counts heads by that.
WIDTH, HEAD, LAYERS, SIDE, PATCH = 144, 72, 3, 64, 8
# Of the keys in published files; transformers' own class has it in some versions and not in others.
PREFIX = "vision_model."


def build() -> SiglipVisionModel:
    """An untrained encoder for pictures of 64 x 64 px: 64 tokens of 144."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD,
        image_size=SIDE,
        patch_size=PATCH,
    )
    return SiglipVisionModel(config).to(device())


class Reader(nn.Module):
    """Says subject, colour, background and position from the tokens that adapters use, and from the pooled vector."""

    def __init__(self, encoder: SiglipVisionModel):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(WIDTH, len(answers)) for name, answers in ANSWERS.items()}) for _ in range(2)
        )

    def forward(self, pictures: Tensor) -> list[dict[str, Tensor]]:
        """Logits [B, answers] per attribute, of each of the two readers."""
        out = self.encoder(pictures, output_hidden_states=True)
        codes = out.hidden_states[-2].mean(1), out.pooler_output
        return [
            {name: head(code) for name, head in heads.items()} for heads, code in zip(self.heads, codes, strict=True)
        ]


def squash(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, h, w] in [-1, 1], which is mean and deviation 0.5, at the encoder's size whatever their shape."""
    return nn.functional.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)


@torch.no_grad()
def features(encoder: SiglipVisionModel, pictures: Tensor) -> Tensor:
    """What adapters see of pictures [B, 3, h, w] in [-1, 1]: the last hidden states but one, [B, 64, 144]."""
    return encoder(squash(pictures).to(device()), output_hidden_states=True).hidden_states[-2]


def _batch(rng: np.random.Generator, count: int) -> tuple[Tensor, list[Scene]]:
    scenes = [sample_scene(rng) for _ in range(count)]
    height, width = (int(side) for side in rng.choice((64, 80, 96, 128), size=2))
    return squash(draw(scenes, height, width)), scenes


def train(work: Path, target: Path, minutes: float) -> None:
    """Trains for `minutes`, resuming a stopped run, and writes the file `target`."""
    torch.manual_seed(SEED)
    reader = Reader(build()).to(device())

    def loss(rng: np.random.Generator, _progress: float) -> Tensor:
        pictures, scenes = _batch(rng, BATCH)
        answers = {name: value.to(device()) for name, value in labels(scenes).items()}
        with autocast(device()):
            replies = reader(pictures.to(device()))
        return torch.stack(
            [nn.functional.cross_entropy(reply[name].float(), answers[name]) for reply in replies for name in ANSWERS]
        ).mean()

    learn(work / "vision-run.pt", reader, loss, minutes, peak=1e-3, seed=SEED)
    pictures, scenes = _batch(np.random.default_rng([SEED, 1, 0]), 256)
    with torch.no_grad():
        replies = reader(pictures.to(device()))
    for name, wanted in labels(scenes).items():
        print(
            f"{name}: "
            + " ".join(f"{(reply[name].argmax(-1).cpu() == wanted).float().mean():.3f}" for reply in replies)
        )
    state = {PREFIX + key: tensor for key, tensor in reader.encoder.state_dict().items()}
    print(f"{target}: {store(state, target)} bytes")


def load_vision(file: Path) -> SiglipVisionModel:
    """The trained encoder in fp32."""
    from safetensors.torch import load_file

    encoder = build()
    encoder.load_state_dict({key.removeprefix(PREFIX): tensor.float() for key, tensor in load_file(file).items()})
    return encoder.requires_grad_(False).eval()
