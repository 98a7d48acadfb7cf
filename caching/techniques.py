"""The three techniques: what each computes of every step, what it looks at to decide, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .forward import Forward
from .options import Technique

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Computed:
    """A step computed in full. `tail` is what a reused step adds to its base instead."""

    output: torch.Tensor
    tail: torch.Tensor


class Pass:
    """One forward pass as a technique takes it apart: `base` is computed at once, the rest when it is asked for."""

    base: torch.Tensor
    """The image stream [B, tokens, width] that a tail is added to."""

    def __init__(self, forward: Forward):
        self._forward = forward

    def signal(self) -> torch.Tensor:
        """What tells whether reuse is near enough, [B, tokens, width]."""
        raise NotImplementedError

    def compute(self) -> Computed:
        """The step in full. The ControlNets run here, and only here."""
        raise NotImplementedError

    def resume(self, hidden: torch.Tensor) -> torch.Tensor:
        """The output from `hidden`, which is base and tail together."""
        return self._forward.head(hidden)


class FirstBlock(Pass):
    """First Block Cache (ParaAttention): what the first block adds to the image stream tells what the others will.

    Nothing reads the text stream after the last block, so none of it is kept.
    """

    def __init__(self, forward: Forward):
        super().__init__(forward)
        self._embedded = forward.embed()
        self.base = forward.first()

    def signal(self) -> torch.Tensor:
        return self.base - self._embedded

    def compute(self) -> Computed:
        hidden = self._forward.rest()
        return Computed(self._forward.head(hidden), hidden - self.base)


class DualBlock(FirstBlock):
    """DB Cache (cache-dit's DBCache): as First Block Cache, but the end of the last block is computed in every step as
    well, on what the blocks before it are foretold to give.

    Of the last block it is the feed-forward: its attention would need the text stream, and would cost as much again.
    One block at the front: with more of them the ControlNets would have to run before anything is decided.
    """

    def compute(self) -> Computed:
        hidden = self._forward.attended()
        return Computed(self._forward.head(self._forward.feed(hidden)), hidden - self.base)

    def resume(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._forward.head(self._forward.feed(hidden))


class TimestepEmbedding(Pass):
    """TeaCache (Liu et al. 2024, https://arxiv.org/abs/2411.19108): the input as the timestep modulates it tells how
    the output will change, so that a reused step needs no block at all.
    """

    def __init__(self, forward: Forward):
        super().__init__(forward)
        self.base = forward.embed()

    def signal(self) -> torch.Tensor:
        return self._forward.modulated()

    def compute(self) -> Computed:
        self._forward.first()
        hidden = self._forward.rest()
        return Computed(self._forward.head(hidden), hidden - self.base)


PASSES: dict[Technique, type[Pass]] = {"fb": FirstBlock, "tea": TimestepEmbedding, "db": DualBlock}
