"""How near a signal is to what it was, or was foretold to be: one number for all samples of all passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FEWEST_TOKENS = 256
"""Tokens of a sample that its error is measured on, where it has that many."""
SPARSEST = 8
"""A large picture's error is measured on every eighth token, which keeps the memory of signals small beside one tensor
of hidden states."""


def sparse(signal: torch.Tensor) -> torch.Tensor:
    """Every few tokens of a signal [B, tokens, width], in memory of its own."""
    stride = min(max(signal.shape[1] // FEWEST_TOKENS, 2), SPARSEST)
    return signal[:, ::stride].contiguous()


def errors(signal: torch.Tensor, foretold: torch.Tensor, measure: torch.Tensor) -> torch.Tensor:
    """[B]: each sample's mean distance from what was foretold, as a share of the mean size of `measure`; float32."""
    distance = (signal.float() - foretold.float()).abs().mean((1, 2))
    return distance / measure.float().abs().mean((1, 2))


def worst(of_passes: Sequence[torch.Tensor]) -> float:
    """The largest error of any sample in any pass, so that no picture hides behind others; NaN if any is. This is the
    one time in a step that the host waits for the device.
    """
    import torch

    return torch.cat(list(of_passes)).amax().item()
