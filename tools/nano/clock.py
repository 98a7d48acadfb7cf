"""What the training stages share: the device, a learning rate that follows the wall clock, lasting checkpoints."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import torch


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(on: torch.device) -> torch.autocast:
    """bfloat16 matrix products: as fast as a GPU allows, and 2.5 times fp32 on a CPU with AVX512-BF16."""
    return torch.autocast(on.type, torch.bfloat16)


class Clock:
    """Training time, so that a run ends after `minutes` whatever else the machine does.

    `elapsed` carries the seconds of earlier runs over a restart.
    """

    def __init__(self, minutes: float, elapsed: float = 0.0):
        self.budget = minutes * 60
        self._start = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """The share of the budget that is used up, 1 when the run is over."""
        return min(1.0, self.elapsed / self.budget)


def learning_rate(peak: float, step: int, progress: float, warmup: int = 200, hold: float = 0.3) -> float:
    """Linear warm-up over `warmup` steps, `peak` until the share `hold` of the time, then a cosine to a hundredth."""
    decay = 0.5 + 0.5 * math.cos(math.pi * max(0.0, progress - hold) / (1 - hold))
    return peak * min(1.0, (step + 1) / warmup) * max(0.01, decay)


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint in one move, so that a stop half-way leaves the old one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`, on the CPU, or None where there is none yet."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
