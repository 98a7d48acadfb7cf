"""The pack's accelerators: each technique through a request, and two of them with a piece left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial

import torch
from sd3_local.caching import CacheOptions, CacheRun, DiffusersForward, Technique, Tuning
from sd3_local.pipelines.denoise import TIMESTEPS
from sd3_local.pipelines.samplers import sigmas

from ._caching_methods import Method, Painter, Shot, Task

THRESHOLDS = (0.7, 0.5, 0.35, 0.2, 0.0)
# From careful to bold, in each option's own direction.
SWEEPS: dict[Technique, tuple[str, tuple[float, ...]]] = {
    "fb": ("fbCacheThreshold", THRESHOLDS),
    "tea": ("teaCacheDistance", tuple(round(1 - value, 2) for value in THRESHOLDS)),
    "db": ("dbCacheThreshold", THRESHOLDS),
}
# The API's most steps in a row -> the first setting of a sweep that is painted with it.
MOST_IN_A_ROW = {3: 3, 5: 0}

# What the sweeps' thresholds come down to, roughly: the errors that a row of reused steps may make.
LIMITS = (0.06, 0.12, 0.25)


def accelerators(painter: Painter) -> Iterator[Method]:
    """Each technique over its sweep, as a request asks for it."""
    for technique, (threshold, values) in SWEEPS.items():
        for most, first in MOST_IN_A_ROW.items():
            for value in values[first:]:
                options = {f"{technique}Cache": True, threshold: value, "cacheMaxConsecutiveSteps": most}
                paint = partial(painter.paint, acceleratorOptions=options)
                yield Method(f"SD3 Local, {technique}", f"{threshold} {value:g}, at most {most}", paint)


def left_out(painter: Painter) -> Iterator[Method]:
    """The core with each piece of its tuning off."""
    for technique in ("fb", "tea"):
        for piece in fields(Tuning):
            for limit in LIMITS:
                paint = partial(_paint, painter, technique, limit, Tuning(**{piece.name: False}))
                yield Method(f"SD3 Local, {technique} without {piece.name}", f"limit {limit:g}, at most 5", paint)


def _paint(painter: Painter, technique: Technique, limit: float, tuning: Tuning, task: Task) -> Shot:
    options = CacheOptions(technique, limit, range(task.steps), 5, tuning=tuning)
    return painter.paint(task, partial(_cached, options, sigmas("default", task.steps)))


@contextmanager
def _cached(options: CacheOptions, schedule: tuple[float, ...], transformer: torch.nn.Module) -> Iterator[None]:
    """The core alone, without the request's options that it is made from."""
    run = CacheRun(options, schedule, transformer.device)
    with installed(cached_forward(run, schedule, transformer), run, transformer):
        yield


@contextmanager
def installed(
    forward: Callable[..., tuple[torch.Tensor]], run: CacheRun, transformer: torch.nn.Module
) -> Iterator[None]:
    """The transformer calls `forward` meanwhile; `run`, which that asks, ends with it."""
    transformer.forward = forward
    try:
        yield
    finally:
        del transformer.forward
        run.close()


def cached_forward(
    run: CacheRun, schedule: tuple[float, ...], transformer: torch.nn.Module
) -> Callable[..., tuple[torch.Tensor]]:
    """A `forward` of the transformer that `run` decides about, without any feature."""

    def forward(
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        **others: object,
    ) -> tuple[torch.Tensor]:
        told = timestep[0].item() / TIMESTEPS
        sigma = min(schedule, key=lambda one: abs(one - told))
        parts = DiffusersForward(
            transformer, hidden_states, encoder_hidden_states, pooled_projections, timestep, lambda: None, lambda: None
        )
        return (run.evaluate(sigma, {"both": parts})[0],)

    return forward
