"""One sampling run under a cache: decides about each step, and keeps what the next steps may need."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .forward import Forward
from .options import CacheOptions
from .signals import sparse, worst
from .slot import Slot, reached
from .steps import Place, Steps
from .techniques import PASSES, Pass
from .trace import Reason, Row, Trace

if TYPE_CHECKING:
    import torch

KEPT = 2
"""Computed steps that a forecast starts from: as many before its window, a run begins to keep them."""


@dataclass(frozen=True)
class _Part:
    """One pass of an evaluation, with its signal where that is needed."""

    key: Hashable
    run: Pass
    signal: torch.Tensor | None = None


class CacheRun:
    """The caches of one run on `device` along `sigmas`: made new for each canvas, and dropped after it.

    `evaluations` is how often the sampler evaluates a step at most; `stochastic` says that it adds noise, so that the
    past foretells nothing. Nothing is changed in the modules, so nothing has to be undone.
    """

    def __init__(
        self,
        options: CacheOptions,
        sigmas: Sequence[float],
        device: torch.device,
        *,
        evaluations: int = 1,
        stochastic: bool = False,
    ):
        self.trace = Trace(device)
        self._options = options
        self._steps = Steps(sigmas, evaluations)
        # Two slots a step, or noise between the steps: only the newest is kept, and reused as it is.
        self._forecasts = options.tuning.forecast and evaluations == 1 and not stochastic
        self._slots: dict[Hashable, Slot] = {}
        self._signature: Hashable = None
        self._emptied: Reason = "shape"
        self._run = 0
        self._total = 0.0

    def evaluate(
        self, sigma: float, forwards: Mapping[Hashable, Forward], signature: Hashable = None
    ) -> list[torch.Tensor]:
        """The outputs of all `forwards` at `sigma`, in their order: all computed, or all reused.

        The keys say what a forward pass is for, such as the negative prompt where it is apart from the positive. A
        `signature` unlike the last evaluation's says that the model or its guides are not what they were.
        """
        place = self._steps.place(sigma)
        with self.trace.timed() as note:
            parts = [self._part(place, role, forward) for role, forward in forwards.items()]
            stale = self._stale(place, parts, signature)
            if stale is not None:
                self._slots.clear()
                self._emptied = stale
            share = self._reached(sigma, parts)
            if place.corrects:
                row = self._second(place, sigma, parts, stale)
            else:
                row = self._decide(place, sigma, parts, stale, share)
            note(row)
            if row.action == "reused":
                outputs = [self._reuse(part, share) for part in parts]
            else:
                outputs = [self._compute(place, sigma, part) for part in parts]
            self.trace.holds(sum(slot.nbytes for slot in self._slots.values()))
            return outputs

    def close(self) -> None:
        """Frees what is kept, and reads the times."""
        self._slots.clear()
        self.trace.settle()

    def _part(self, place: Place, role: Hashable, forward: Forward) -> _Part:
        run = PASSES[self._options.technique](forward)
        base = run.base
        key = (place.corrects, role, tuple(base.shape), base.dtype, base.device)
        return _Part(key, run, sparse(run.signal()) if self._looks(place) else None)

    def _reached(self, sigma: float, parts: Sequence[_Part]) -> torch.Tensor | None:
        """How far a forecast would go, if there is what to forecast from."""
        if any(part.signal is None or part.key not in self._slots for part in parts):
            return None
        return reached(sigma, [self._slots[part.key] for part in parts], [part.signal for part in parts])

    def _looks(self, place: Place) -> bool:
        """Whether signals are of use: to measure an error, or to say how far a forecast goes."""
        measures = math.isfinite(self._options.limit) or self._forecasts
        # A second evaluation does what its step's first one did.
        return measures and not place.corrects and self._is_near(place.step)

    def _is_near(self, step: int) -> bool:
        """Whether this step may be reused, or a later one from what is computed in it."""
        window = self._options.window
        return self._options.limit > 0 and window.start - KEPT <= step < min(window.stop, self._steps.count - 1)

    def _stale(self, place: Place, parts: Sequence[_Part], signature: Hashable) -> Reason | None:
        """Why what was kept can't be used any more."""
        before, self._signature = self._signature, signature
        if not self.trace.rows:
            return "first"
        if place.jumped:
            return "jump"
        if signature != before:
            return "change"
        kept = [key for key in self._slots if key[0] == place.corrects]
        return "shape" if kept and any(part.key not in kept for part in parts) else None

    def _decide(
        self,
        place: Place,
        sigma: float,
        parts: Sequence[_Part],
        stale: Reason | None,
        share: torch.Tensor | None,
    ) -> Row:
        """What is done in a step. The host's own knowledge is asked first, the device only when that is not enough."""
        row = Row(place.step, sigma, limit=self._options.limit)
        reason = self._forced(place.step, parts, stale)
        if reason is None and math.isfinite(self._options.limit):
            row.error = worst([self._slots[part.key].errors(part.signal, share) for part in parts])
            row.total = row.error + (self._total if self._options.tuning.accumulate else 0.0)
            if not row.total < self._options.limit:
                reason = "threshold" if math.isfinite(row.total) else "nan"
        if reason is not None:
            self._run, self._total = 0, 0.0
            row.reason = reason
            return row
        self._run += 1
        self._total = row.total or 0.0
        row.action, row.reason, row.run = "reused", "threshold", self._run
        return row

    def _forced(self, step: int, parts: Sequence[_Part], stale: Reason | None) -> Reason | None:
        """Why a step has to be computed, whatever its error."""
        options = self._options
        if options.limit == 0:
            return "off"
        if stale is not None:
            return stale
        if step == self._steps.count - 1:
            return "last"
        if step not in options.window:
            return "window"
        if self._run >= options.max_consecutive:
            return "maximum"
        if options.interval is not None and self._run >= options.interval:
            return "interval"
        return None if all(part.key in self._slots for part in parts) else self._emptied

    def _second(self, place: Place, sigma: float, parts: Sequence[_Part], stale: Reason | None) -> Row:
        """The second evaluation of a step does as the first did; it never uses what the first one kept."""
        row = Row(place.step, sigma, corrects=True, reason="pair")
        if stale is not None:
            row.reason = stale
        elif self._run and all(part.key in self._slots for part in parts):
            row.action = "reused"
        return row

    def _compute(self, place: Place, sigma: float, part: _Part) -> torch.Tensor:
        if not self._is_near(place.step):
            self._slots.pop(part.key, None)
            return part.run.compute().output
        slot = self._slots.setdefault(part.key, Slot(self._forecasts and not place.corrects))
        slot.make_room()
        computed = part.run.compute()
        slot.keep(sigma, computed, part.signal)
        return computed.output

    def _reuse(self, part: _Part, share: torch.Tensor | None) -> torch.Tensor:
        slot = self._slots[part.key]
        return part.run.resume(part.run.base + slot.forecast(share), slot.text)
