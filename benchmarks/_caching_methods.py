"""What `bench caching` compares: ways to paint the same picture in less time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.monitor import Unwatched

from tests.engines import open_model, request

from ._caching_measures import Meter, transformer_parts

FULL_RUN = "full run"
FEWER_STEPS = (7, 9, 10, 12, 14, 18)


@dataclass(frozen=True)
class Task:
    """One picture to paint, with the scheduler "Default"."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float = 5.0


@dataclass(frozen=True)
class Shot:
    """A painted picture [height, width, 3] from 0 to 1, the seconds of its sampling, and what the transformer computed
    for it.
    """

    pixels: torch.Tensor
    seconds: float
    flops: int


@dataclass(frozen=True)
class Method:
    """One way to paint. Methods of one `name` differ in their `setting`, and their best ones make its frontier.

    `reference` is the name of the method that its pictures and costs are compared with: its own engine's full run.
    """

    name: str
    setting: str
    paint: Callable[[Task], Shot]
    reference: str = FULL_RUN


class Painter:
    """The pack's engine on the embedded model, with nothing cached but what a method brings."""

    def __init__(self, path: Path):
        self.model = open_model(path)
        self.transformer = self.model.transformer().module
        self._meter = Meter(transformer_parts(self.transformer))

    def paint(
        self,
        task: Task,
        installed: Callable[[torch.nn.Module], AbstractContextManager[object]] = nullcontext,
        **fields: object,
    ) -> Shot:
        """Paints `task`; `fields` of the request differ from it, and `installed` is on the transformer meanwhile."""
        common = {"steps": task.steps, "scheduler": "Default"} | fields
        asked = request(
            positivePrompt=task.prompt,
            width=task.width,
            height=task.height,
            CFGScale=task.guidance,
            seed=task.seed,
            **common,
        )
        with installed(self.transformer), self._meter:
            result = generate(asked, self.model, Unwatched())
        return Shot(result.pictures[0].pixels, result.report.seconds["denoise"], self._meter.flops)


def full_run(painter: Painter) -> Method:
    return Method(FULL_RUN, "all steps", painter.paint)


def fewer_steps(painter: Painter, steps: int) -> Iterator[Method]:
    """The honest baseline: the same model with fewer steps, by the same solver and by a better one."""
    # Runs shorter than these, such as quick ones, are halved.
    counts = [count for count in FEWER_STEPS if count < steps] or [max(steps // 2, 1)]
    for name, scheduler in (("Euler", "Default"), ("DPM++ 2M", "DPM++ 2M")):
        for count in counts:
            paint = partial(painter.paint, steps=count, scheduler=scheduler)
            yield Method(f"{name}, fewer steps", f"{count} steps", paint)
