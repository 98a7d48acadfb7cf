"""Latents that an add-on learns from, made once and kept on disk with their scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .clock import load, save
from .vae import canvases
from .world import Scene

Size = tuple[int, int]
Make = Callable[[np.random.Generator, Size, int], tuple[dict[str, Tensor], list[Scene]]]
"""(random numbers, height and width in pixels, B) -> tensors [B, ...] by name, and their B scenes."""


def keep(path: Path, pictures: int, seed: int, make: Make, batch: int = 32) -> Kept:
    """What `path` has, or, where it is not there yet, `pictures` made by `make` and written to it; two in three are of
    128 x 128 px.
    """
    found = load(path)
    if found is None:
        rng = np.random.default_rng([seed, 0])
        groups: dict[Size, list[dict[str, Tensor]]] = {}
        scenes: dict[Size, list[tuple]] = {}
        for _ in range(-(-pictures // batch)):
            size = canvases(rng)
            tensors, drawn = make(rng, size, batch)
            groups.setdefault(size, []).append({name: tensor.half() for name, tensor in tensors.items()})
            scenes.setdefault(size, []).extend(astuple(scene) for scene in drawn)
        joined = {
            size: {name: torch.cat([g[name] for g in group]) for name in group[0]} for size, group in groups.items()
        }
        found = {"tensors": joined, "scenes": scenes}
        save(path, found)
        print(f"kept {path.name}", flush=True)
    return Kept(found["tensors"], {size: [Scene(*s) for s in group] for size, group in found["scenes"].items()})


class Kept:
    """Pictures by canvas size."""

    def __init__(self, tensors: dict[Size, dict[str, Tensor]], scenes: dict[Size, list[Scene]]):
        self._tensors, self._scenes = tensors, scenes
        self._sizes = list(scenes)
        counts = np.array([len(scenes[size]) for size in self._sizes], float)
        self._shares = counts / counts.sum()

    def batch(self, rng: np.random.Generator, pictures: int) -> tuple[dict[str, Tensor], list[Scene]]:
        """Tensors and scenes of one size, as many as have the pixels of `pictures` of 128 x 128."""
        size = self._sizes[rng.choice(len(self._sizes), p=self._shares)]
        count = max(4, round(pictures * 128 * 128 / (size[0] * size[1])))
        chosen = rng.integers(len(self._scenes[size]), size=count)
        tensors = {name: tensor[chosen].float() for name, tensor in self._tensors[size].items()}
        return tensors, [self._scenes[size][n] for n in chosen]
