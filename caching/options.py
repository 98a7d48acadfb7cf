"""What a cache run is told: the technique, how much error it may make, and the host-side bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Technique = Literal["fb", "tea", "db"]


@dataclass(frozen=True)
class Tuning:
    """What makes these caches better than plain reuse. A benchmark turns each off to show what it brings."""

    forecast: bool = True
    """Continues the cached residual to first order in sigma, and judges by how well the same forecast foretold the
    signal; off, the residual is reused as it was and judged by how much the signal changed."""
    align: bool = True
    """A forecast goes as far as the signal went along its own line; off, as far as sigma did."""
    accumulate: bool = True
    """Errors of the steps reused in a row add up; off, each step is judged alone."""


@dataclass(frozen=True)
class CacheOptions:
    """One technique and its bounds.

    `limit` is the error that reuse may make: 0 never reuses, infinity always does where the bounds let it. `window` is
    the executed steps that may be reused. `max_consecutive` steps in a row are reused at most, and no more than
    `interval`.
    """

    technique: Technique
    limit: float
    window: range
    max_consecutive: int
    interval: int | None = None
    tuning: Tuning = field(default_factory=Tuning)


def limit_of(eagerness: float, scale: float, usual: float = 0.5) -> float:
    """The error that `eagerness`, from 0 (never reuse) to 1 (whenever the bounds let it), allows.

    It is `scale` at the `usual` eagerness, and rises without bound: with the odds eagerness / (1 - eagerness).
    """
    return math.inf if eagerness >= 1 else scale * _odds(eagerness) / _odds(usual)


def _odds(share: float) -> float:
    return share / (1 - share)
