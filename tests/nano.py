"""The embedded model and its add-ons on the CPU, without a host."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.engines import open_model, request
from tools.nano.world import Scene, draw_scene, sample_scene
from tools.pack import ROOT

Item, Outcome = TypeVar("Item"), TypeVar("Outcome")

ASSETS = ROOT / "assets" / "nano"
SIDE = 128


def open_nano() -> Model:
    return open_model(ASSETS / "sd3-nano.safetensors")


def asset(name: str) -> Path:
    """The file of an add-on."""
    return next(ASSETS.glob(f"{name}.*"))


def run(
    model: Model, pictures: Mapping[str, torch.Tensor] | None = None, materials: Materials | None = None, **fields: Any
) -> Result:
    """Runs a request of the native size and 28 steps; `pictures` by the names that `fields` give them."""
    asked = request(**{"width": SIDE, "height": SIDE, "steps": 28, "CFGScale": 5.0, **fields})
    given = Materials.merged([materials or Materials(), Materials(pictures=pictures or {})])
    return generate(asked, model, Unwatched(), given)


def scenes(seed: int, count: int, **fixed: str) -> list[Scene]:
    """Scenes that no training and no other test has seen."""
    rng = np.random.default_rng([7, 500 + seed])
    return [sample_scene(rng, **fixed) for _ in range(count)]


def drawn(scene: Scene, width: int = SIDE, height: int = SIDE) -> torch.Tensor:
    """The scene as a picture of a request, [1, height, width, 3]."""
    return draw_scene(scene, height, width).movedim(0, -1)[None]


def halves(work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    """What `work` gives for each item, in order. Every other one is done in a second process: torch has one thread in
    tests, and machines have two cores. What it gives must be plain values; models are loaded by the first item.
    """
    first = [work(items[0])] if items else []
    if not hasattr(os, "fork"):
        return first + [work(item) for item in items[1:]]
    mine, theirs = items[1::2], items[2::2]
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def send() -> None:
        try:
            sender.send(([work(item) for item in theirs], None))
        except BaseException as error:
            sender.send(([], f"{type(error).__name__}: {error}"))

    process = fork.Process(target=send, daemon=True)
    process.start()
    sender.close()
    done = [work(item) for item in mine]
    others, error = receiver.recv()
    process.join()
    assert error is None, error
    pairs = zip_longest(done, others)
    return first + [one for one in chain.from_iterable(pairs) if one is not None]


def planes(picture: torch.Tensor) -> torch.Tensor:
    """A result [H, W, 3] as the judge takes it, [3, H, W]."""
    return picture.movedim(-1, 0)
