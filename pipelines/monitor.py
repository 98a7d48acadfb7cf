"""Who watches a run: progress, previews and the wish to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Monitor(Protocol):
    def check(self) -> None:
        """Called between pieces of work. Raises when the run is to stop."""
        ...

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        """`done` of `total` steps have run, the last of them `reused` or computed; `x0` is the picture foreseen now,
        [1, 16, height / 8, width / 8] in model space.
        """
        ...


class Unwatched:
    """Nobody watches."""

    def check(self) -> None:
        pass

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        pass
