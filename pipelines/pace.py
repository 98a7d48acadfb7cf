"""How long a run will still take, from how long its steps took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

RECENT = 6
"""Steps by which the share of reused ones is judged where no earlier result tells."""


class Pace:
    """The time of a run of `results` pictures, all of the same number of steps.

    Computed and reused steps are timed apart, because a reused one costs almost nothing. Which of the coming steps will
    be reused is told by the same steps of the result before; in the first result, by the share among the latest steps.
    """

    def __init__(self, results: int = 1, clock: Callable[[], float] = time.perf_counter):
        self.done = 0
        self.reused = 0
        self._results = results
        self._clock = clock
        self._last: float | None = None
        self._times: dict[bool, list[float]] = {True: [], False: []}
        self._pauses: list[float] = []
        self._known: dict[int, bool] = {}
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def step(self, done: int, total: int, reused: bool) -> None:
        """`done` of `total` steps have run. A step that is evaluated twice may say so twice."""
        if done == self.done:
            return
        now = self._clock()
        place = (done - 1) % self._steps(total)
        if self._last is not None:
            took = now - self._last
            if place:
                self._times[reused].append(took)
            else:
                # Between two results there are decoding and encoding, and the first step of the second one.
                self._pauses.append(max(took - self._mean(False), 0.0))
        self._known[place] = reused
        self._recent.append(reused)
        self._last, self.done = now, done
        self.reused += reused

    def left(self, total: int) -> float | None:
        """Seconds that the run will still take; None while nothing tells."""
        if not any(self._times.values()):
            return None
        steps = self._steps(total)
        share = sum(self._recent) / len(self._recent)
        left = 0.0
        for place in (index % steps for index in range(self.done, total)):
            likely = self._likely(place, steps, share)
            left += likely * self._mean(True) + (1 - likely) * self._mean(False)
        ends = self._results - (self.done - 1) // steps
        return left + ends * (sum(self._pauses) / len(self._pauses) if self._pauses else 0.0)

    def _steps(self, total: int) -> int:
        return max(total // self._results, 1)

    def _likely(self, place: int, steps: int, share: float) -> float:
        """How likely the step is to be reused, from 0 to 1."""
        if place in self._known:
            return float(self._known[place])
        return 0.0 if place in (0, steps - 1) else share

    def _mean(self, reused: bool) -> float:
        """What a step of this kind takes; as long as there was none, what the other kind takes."""
        times = self._times[reused] or self._times[not reused]
        return sum(times) / len(times) if times else 0.0
