"""Watches a run that computes every step: what each technique's signal says of reuse, and what reuse would cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .forward import Forward
from .options import Technique
from .signals import errors, sparse, worst
from .slot import Slot, reached

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pair:
    """A step that might have been reused. Both errors are sums over the row of reused steps that ends with it: `signal`
    is what a decision compares with its limit, `output` how far the velocities would have been off, each as a share
    of its size.
    """

    technique: Technique
    signal: float
    output: float


@dataclass(frozen=True)
class _Part:
    """What one technique makes of a computed pass."""

    base: torch.Tensor
    signal: torch.Tensor
    tail: torch.Tensor
    resume: Callable[[torch.Tensor], torch.Tensor]


class Recorder:
    """Takes a `CacheRun`'s place in a run along any sigmas, and computes all of it.

    It plays a cache that reuses `row` steps after each computed one, first computing step `offset`, and measures both
    errors of each step that this cache would have reused, once it has two steps to foretell from: the worst of all
    samples and passes. The last of `steps`, which no cache reuses, is left out. Of each technique it keeps what that
    cache would keep.

    A pass's `feed` and `head` are asked more than once, so they must leave nothing behind, as DiffusersForward's.
    """

    def __init__(self, steps: int, row: int, offset: int = 0):
        self.pairs: list[Pair] = []
        self._last = steps - 1 - offset
        self._period = row + 1
        self._step = -1 - offset
        self._slots: dict[tuple[Technique, Hashable], Slot] = {}
        self._totals: dict[Technique, tuple[float, float]] = {}

    @property
    def reused(self) -> bool:
        """As of a `CacheRun`: nothing is reused here."""
        return False

    def evaluate(
        self, sigma: float, forwards: Mapping[Hashable, Forward], signature: Hashable = None
    ) -> list[torch.Tensor]:
        """The outputs of all `forwards` at `sigma`, in their order."""
        self._step += 1
        computes = self._step % self._period == 0
        parts: dict[Technique, dict[Hashable, _Part]] = {}
        outputs = {}
        for role, forward in forwards.items():
            outputs[role], of_techniques = _taken_apart(forward)
            for technique, part in of_techniques.items():
                parts.setdefault(technique, {})[role] = part
        for technique, passes in parts.items():
            if computes:
                self._totals[technique] = (0.0, 0.0)
                for role, part in passes.items():
                    self._slots.setdefault((technique, role), Slot(True)).keep(sigma, part.tail, part.signal)
            elif self._step < self._last:
                self._measure(technique, sigma, passes, outputs)
        return list(outputs.values())

    def _measure(
        self,
        technique: Technique,
        sigma: float,
        passes: Mapping[Hashable, _Part],
        outputs: Mapping[Hashable, torch.Tensor],
    ) -> None:
        slots = [self._slots.get((technique, role)) for role in passes]
        if any(slot is None for slot in slots):
            return
        signals = [part.signal for part in passes.values()]
        share = reached(sigma, slots, signals)
        if share is None:
            return
        off, missed = self._totals[technique]
        off += worst([slot.errors(signal, share) for slot, signal in zip(slots, signals, strict=True)])
        missed += worst(
            [
                _output_errors(part.resume(part.base + slot.forecast(share)), outputs[role])
                for slot, (role, part) in zip(slots, passes.items(), strict=True)
            ]
        )
        self._totals[technique] = (off, missed)
        self.pairs.append(Pair(technique, off, missed))


def _taken_apart(forward: Forward) -> tuple[torch.Tensor, dict[Technique, _Part]]:
    """One pass, computed once for all techniques, as each of them would take it apart (see techniques.py)."""
    embedded = forward.embed()
    modulated = sparse(forward.modulated())
    first = forward.first()
    added = sparse(first - embedded)
    attended = forward.attended()
    hidden = forward.feed(attended)
    return forward.head(hidden), {
        "fb": _Part(first, added, hidden - first, forward.head),
        "tea": _Part(embedded, modulated, hidden - embedded, forward.head),
        "db": _Part(first, added, attended - first, lambda foretold: forward.head(forward.feed(foretold))),
    }


def _output_errors(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """[B]: how far each sample's velocity is off, as a share of its size."""
    return errors(made.flatten(2), truth.flatten(2), truth.flatten(2))
