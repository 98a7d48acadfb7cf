"""Which step an evaluation belongs to, by its sigma."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The step of an evaluation, and whether it is the second one of a step. `jumped` says that it does not follow the
    one before it: sigma rose, or steps were left out.
    """

    step: int
    corrects: bool
    jumped: bool = False


class Steps:
    """Places the evaluations of one run, whose sampler falls along `sigmas` and evaluates each step at most
    `evaluations` times.

    A second evaluation lies inside its step (midpoint rules), or at its end, where the next step's first one lies as
    well (Heun). A sampler does the one or the other in all its steps, so the first step tells which.
    """

    def __init__(self, sigmas: Sequence[float], evaluations: int = 1):
        self.sigmas = tuple(sigmas)
        self.count = len(self.sigmas) - 1
        self._ascending = sorted(self.sigmas)
        self._evaluations = evaluations
        self._step = -1
        self._sigma = float("inf")
        self._waits = False
        self._ends: bool | None = None

    def place(self, sigma: float) -> Place:
        """The place of the next evaluation."""
        if self._waits and self._is_second(sigma):
            self._waits = False
            return Place(self._step, corrects=True)
        step = self._at(sigma)
        # Heun's next step begins at the very sigma of its second evaluation.
        jumped = self._step >= 0 and (sigma >= self._sigma or step > self._step + 1)
        self._step, self._sigma, self._waits = step, sigma, self._evaluations > 1
        return Place(step, corrects=False, jumped=jumped)

    def _is_second(self, sigma: float) -> bool:
        end = self.sigmas[self._step + 1]
        inside = end < sigma < self._sigma
        at_end = sigma == end and self._ends is not False
        if inside or at_end:
            self._ends = at_end
        return inside or at_end

    def _at(self, sigma: float) -> int:
        reached = len(self._ascending) - bisect.bisect_left(self._ascending, sigma)
        return min(max(reached - 1, 0), self.count - 1)
