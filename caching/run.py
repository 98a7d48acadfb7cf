"""One sampling run under a cache: decides about each step, and keeps what the next steps may need."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .forward import Forward
from .options import CacheOptions
from .signals import sparse, worst
from .slot import Slot, reached
from .steps import Place, Steps
from .techniques import PASSES
from .trace import Action, Reason, Row, Trace

if TYPE_CHECKING:
    import torch

KEPT = 2
"""Computed steps that a forecast starts from: as many before its window, a run begins to keep them."""


@dataclass(frozen=True)
class Seen:
    """What of a pass is known before it is decided about: the image stream that a tail is added to, and its signal
    where that is needed.
    """

    base: torch.Tensor
    signal: Callable[[], torch.Tensor]


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
        with self.trace.timed() as note:
            evaluation = self.begin(sigma, signature)
            passes = {role: PASSES[self._options.technique](forward) for role, forward in forwards.items()}
            row = evaluation.decide({role: Seen(run.base, run.signal) for role, run in passes.items()})
            note(row)
            outputs = []
            for role, run in passes.items():
                if row.action == "reused":
                    outputs.append(run.resume(run.base + evaluation.foretold(role)))
                    continue
                computed = run.compute()
                evaluation.keep(role, computed.tail)
                outputs.append(computed.output)
            return outputs

    @property
    def reused(self) -> bool:
        """Whether the latest evaluation was reused."""
        return self.trace.rows[-1].action == "reused"

    def begin(self, sigma: float, signature: Hashable = None) -> Evaluation:
        """An evaluation whose passes are taken apart by the caller. See `evaluate`."""
        place = self._steps.place(sigma)
        before, self._signature = self._signature, signature
        stale: Reason | None = None
        if not self.trace.rows:
            stale = "first"
        elif place.jumped:
            stale = "jump"
        elif signature != before:
            stale = "change"
        return Evaluation(self, place, sigma, stale)

    def close(self) -> None:
        """Frees what is kept, and reads the times."""
        self._slots.clear()
        self.trace.settle()

    def _looks(self, place: Place) -> bool:
        """Whether signals are of use: to measure an error, or to say how far a forecast goes."""
        measures = math.isfinite(self._options.limit) or self._forecasts
        # A second evaluation does what its step's first one did.
        return measures and not place.corrects and self._is_near(place.step)

    def _is_near(self, step: int) -> bool:
        """Whether this step may be reused, or a later one from what is computed in it."""
        window = self._options.window
        return self._options.limit > 0 and window.start - KEPT <= step < min(window.stop, self._steps.count - 1)

    def _forced(self, step: int, stale: Reason | None, kept: bool) -> Reason | None:
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
        return None if kept else self._emptied


class Evaluation:
    """One evaluation of a `CacheRun`: `decide`, and then for each pass `foretold` or `keep`, as the row says.

    Passes that are not there yet when it is decided may `join` later, one by one.
    """

    def __init__(self, run: CacheRun, place: Place, sigma: float, stale: Reason | None):
        self._run = run
        self._place = place
        self._sigma = sigma
        self._stale = stale
        self._row: Row | None = None
        self._share: torch.Tensor | None = None
        self._anchors: tuple[float, ...] = ()
        self._keys: dict[Hashable, Hashable] = {}
        self._signals: dict[Hashable, torch.Tensor | None] = {}

    def decide(self, seen: Mapping[Hashable, Seen]) -> Row:
        """What is done about these passes, all alike."""
        run, place = self._run, self._place
        looks = run._looks(place)
        for role, one in seen.items():
            self._see(role, one, looks)
        if self._stale is None and self._is_strange():
            self._stale = "shape"
        if self._stale is not None:
            run._slots.clear()
            run._emptied = self._stale
        slots = [run._slots.get(key) for key in self._keys.values()]
        signals = list(self._signals.values())
        kept = all(slot is not None for slot in slots)
        if looks and kept:
            self._share = reached(self._sigma, slots, signals, run._options.tuning.align)
        if kept:
            self._anchors = slots[0].sigmas
        self._row = self._second(kept) if place.corrects else self._first(kept, slots, signals)
        if self._row.action == "computed":
            self._make_room(self._keys.values())
        return self._row

    def join(self, role: Hashable, seen: Seen) -> Action:
        """What is done about one more pass, once it is decided: the same, unless what is kept for it comes from other
        steps than what was decided by, or nothing is.
        """
        run = self._run
        self._see(role, seen, run._looks(self._place))
        slot = run._slots.get(self._keys[role])
        if self._row.action == "reused" and slot is not None and slot.sigmas == self._anchors:
            return "reused"
        self._make_room([self._keys[role]])
        return "computed"

    def foretold(self, role: Hashable) -> torch.Tensor:
        """The tail of a reused pass, to be added to its base."""
        return self._run._slots[self._keys[role]].forecast(self._share)

    def keep(self, role: Hashable, tail: torch.Tensor) -> None:
        """The tail of a computed pass."""
        run, key = self._run, self._keys[role]
        if run._is_near(self._place.step):
            run._slots[key].keep(self._sigma, tail, self._signals[role])
        run.trace.holds(sum(slot.nbytes for slot in run._slots.values()))

    def _see(self, role: Hashable, seen: Seen, looks: bool) -> None:
        base = seen.base
        self._keys[role] = (self._place.corrects, role, tuple(base.shape), base.dtype, base.device)
        self._signals[role] = sparse(seen.signal()) if looks else None

    def _is_strange(self) -> bool:
        """Whether a pass is unlike those that were kept."""
        kept = [key for key in self._run._slots if key[0] == self._place.corrects]
        return bool(kept) and any(key not in kept for key in self._keys.values())

    def _first(self, kept: bool, slots: Sequence[Slot], signals: Sequence[torch.Tensor]) -> Row:
        """What is done in a step. The host's own knowledge is asked first, the device only when that is not enough."""
        run, limit = self._run, self._run._options.limit
        row = Row(self._place.step, self._sigma, limit=limit)
        reason = run._forced(self._place.step, self._stale, kept)
        if reason is None and math.isfinite(limit):
            row.error = worst([slot.errors(signal, self._share) for slot, signal in zip(slots, signals, strict=True)])
            row.total = row.error + (run._total if run._options.tuning.accumulate else 0.0)
            if not row.total < limit:
                reason = "threshold" if math.isfinite(row.total) else "nan"
        if reason is not None:
            run._run, run._total = 0, 0.0
            row.reason = reason
            return row
        run._run += 1
        run._total = row.total or 0.0
        row.action, row.reason, row.run = "reused", "threshold", run._run
        return row

    def _second(self, kept: bool) -> Row:
        """The second evaluation of a step does as the first did; it never uses what the first one kept."""
        row = Row(self._place.step, self._sigma, corrects=True, reason="pair")
        if self._stale is not None:
            row.reason = self._stale
        elif self._run._run and kept:
            row.action = "reused"
        return row

    def _make_room(self, keys: Iterable[Hashable]) -> None:
        """Frees what will not be needed, before the blocks need their own memory."""
        run = self._run
        for key in keys:
            if not run._is_near(self._place.step):
                run._slots.pop(key, None)
                continue
            slot = run._slots.setdefault(key, Slot(run._forecasts and not self._place.corrects))
            slot.make_room()
