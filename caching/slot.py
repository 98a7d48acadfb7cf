"""What is kept of the computed steps for one kind of pass, and what it foretells of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .signals import errors
from .techniques import Computed

if TYPE_CHECKING:
    import torch

REACH = 1.5
"""How many times the straight line's own step a forecast may go, where the signal has moved on faster."""


class Slot:
    """The tail and the signal of the last computed step, and of the one before it where `forecasts`.

    A tail is foretold along the line through the two, to the point where the signal has moved along its own line: the
    signal's change is projected on its change between the two computed steps (the alignment of DiCache, Bu et al. 2025,
    https://arxiv.org/abs/2508.17356). The point lies between the newest step and `REACH` times as far as the line would
    be at this sigma, so that a signal that turned round or jumped can't throw it off. Each sample has its own.
    """

    def __init__(self, forecasts: bool):
        self.signal: torch.Tensor | None = None
        self.tail: torch.Tensor | None = None
        self.text: torch.Tensor | None = None
        self._forecasts = forecasts
        self._older_signal: torch.Tensor | None = None
        self._older_tail: torch.Tensor | None = None
        self._sigmas: tuple[float, ...] = ()

    def make_room(self) -> None:
        """Frees what the next `keep` would push out, so that it need not lie beside the new."""
        if not self._forecasts:
            self.tail = self.text = None
        self._older_tail = self._older_signal = None

    def keep(self, sigma: float, computed: Computed, signal: torch.Tensor | None) -> None:
        """What was computed at `sigma` is the newest now."""
        if self._forecasts:
            self._older_tail, self._older_signal = self.tail, self.signal
        self.tail, self.text, self.signal = computed.tail, computed.text, signal
        self._sigmas = (*self._sigmas[-1:], sigma)

    def weight(self, sigma: float, signal: torch.Tensor | None) -> torch.Tensor | float:
        """How far past the newest step things are at `sigma`, in units of the two steps' distance: [B, 1, 1], or 0
        where there is nothing to forecast from.
        """
        if self._older_tail is None or self._older_signal is None or signal is None:
            return 0.0
        before, now = self._sigmas
        line = (now - sigma) / (before - now)
        moved = (self.signal - self._older_signal).float()
        along = ((signal - self.signal).float() * moved).sum((1, 2), keepdim=True)
        # A signal that did not move says nothing; 0 / 0 becomes 0.
        return (along / moved.square().sum((1, 2), keepdim=True)).nan_to_num(0.0).clamp(0.0, REACH * line)

    def errors(self, signal: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
        """[B]: how far `signal` is from what was foretold of it, as a share of its size."""
        return errors(signal, _extended(self._older_signal, self.signal, weight), self.signal)

    def forecast(self, weight: torch.Tensor | float) -> torch.Tensor:
        """The tail, foretold."""
        return _extended(self._older_tail, self.tail, weight)

    @property
    def nbytes(self) -> int:
        kept = (self.signal, self.tail, self.text, self._older_signal, self._older_tail)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)


def _extended(older: torch.Tensor | None, newer: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """newer + weight * (newer - older), rounded once: near values have no bits to lose in half precision."""
    import torch

    if older is None or isinstance(weight, float):
        return newer
    return torch.lerp(older, newer, (1 + weight).to(newer.dtype))
