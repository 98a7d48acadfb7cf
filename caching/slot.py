"""What is kept of the computed steps for one kind of pass, and what it foretells of the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .signals import errors

if TYPE_CHECKING:
    import torch

REACH = 1.5
"""How many times the straight line's own step a forecast may go, where the signal has moved on faster."""


class Slot:
    """The tail and the signal of the last computed step, and of the one before it where `forecasts`; `sigmas` are
    theirs.

    A tail is foretold along the line through the two, as far as `reached` says.
    """

    def __init__(self, forecasts: bool):
        self.signal: torch.Tensor | None = None
        self.tail: torch.Tensor | None = None
        self._forecasts = forecasts
        self._older_signal: torch.Tensor | None = None
        self._older_tail: torch.Tensor | None = None
        self.sigmas: tuple[float, ...] = ()

    def make_room(self) -> None:
        """Frees what the next `keep` would push out, so that it need not lie beside the new."""
        if not self._forecasts:
            self.tail = None
        self._older_tail = self._older_signal = None

    def keep(self, sigma: float, tail: torch.Tensor, signal: torch.Tensor | None) -> None:
        """The tail and the signal computed at `sigma` are the newest now."""
        if self._forecasts:
            self._older_tail, self._older_signal = self.tail, self.signal
        self.tail, self.signal = tail, signal
        self.sigmas = (*self.sigmas[-1:], sigma)

    def motion(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """How far `signal` went from the newest step along the way between the two, and how long that way is: two sums
        over all of it, whose ratio is a share of the way. None where only one step is kept.
        """
        if self._older_signal is None:
            return None
        way = (self.signal - self._older_signal).float()
        return ((signal - self.signal).float() * way).sum(), way.square().sum()

    def line(self, sigma: float) -> float:
        """How far past the newest step `sigma` is, as a share of the way between the two."""
        before, now = self.sigmas
        return (now - sigma) / (before - now)

    def errors(self, signal: torch.Tensor, reached: torch.Tensor | None) -> torch.Tensor:
        """[B]: how far `signal` is from what was foretold of it, as a share of its size."""
        return errors(signal, _extended(self._older_signal, self.signal, reached), self.signal)

    def forecast(self, reached: torch.Tensor | None) -> torch.Tensor:
        """The tail, foretold."""
        return _extended(self._older_tail, self.tail, reached)

    @property
    def nbytes(self) -> int:
        kept = (self.signal, self.tail, self._older_signal, self._older_tail)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)


def reached(
    sigma: float, slots: Sequence[Slot], signals: Sequence[torch.Tensor], align: bool = True
) -> torch.Tensor | None:
    """How far past the newest step things are at `sigma`, as a share of the way between the two that are kept; None
    where there is nothing to forecast from.

    The signal's change is projected on its change between the two steps (the alignment of DiCache, Bu et al. 2025,
    https://arxiv.org/abs/2508.17356), and held between the newest step and `REACH` times as far as the line would be,
    so that a signal that turned round or jumped can't throw a forecast off. Without `align` it is the line's.

    It is one share for all samples of all passes: with one for each, the two prompts' forecasts would part, and
    guidance enlarges what lies between them.
    """
    import torch

    motions = [slot.motion(signal) for slot, signal in zip(slots, signals, strict=True)]
    if any(motion is None for motion in motions):
        return None
    if not align:
        return torch.tensor(slots[0].line(sigma), device=signals[0].device)
    along, way = (torch.stack(parts).sum() for parts in zip(*motions, strict=True))
    # A signal that did not move says nothing; 0 / 0 becomes 0.
    return (along / way).nan_to_num(0.0).clamp(0.0, REACH * slots[0].line(sigma))


def _extended(older: torch.Tensor | None, newer: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
    """newer + share * (newer - older), rounded once: near values have no bits to lose in half precision."""
    import torch

    if older is None or share is None:
        return newer
    return torch.lerp(older, newer, (1 + share).to(newer.dtype))
