"""One call of ComfyUI's MMDiT under a cache, through the hooks that replace its blocks.

ComfyUI adds a ControlNet's residual to the image stream after each block, in place and whoever computed the block. So
what is kept must not be what was returned; and what is added after the last block comes on top of a foretold stream as
of a computed one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..caching import Evaluation, Seen
from ..caching.options import Technique
from ..caching.trace import Action

Streams = Mapping[str, Any]
"""What goes into a block and comes out of it: `img` [B, tokens, width], `txt` [B, text tokens, width], and going in
`vec` [B, width], the modulation."""
Block = Callable[[Streams, Mapping[str, Any]], Streams]


class BlockHooks:
    """`options` are the transformer's, with hooks for its blocks that go on to whatever replaced those before.

    `decide` is asked once, after the first block or before it, as the technique wants; `role` is the call's in the
    evaluation that it gives.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        technique: Technique,
        role: Hashable,
        decide: Callable[[Seen], tuple[Evaluation, Action]],
        options: Mapping[str, Any],
        controlled: bool,
    ):
        replaced = options.get("patches_replace", {})
        self._earlier: Mapping[Hashable, Block] = replaced.get("dit", {})
        self._model = model
        self._technique = technique
        self._role = role
        self._decide = decide
        self._controlled = controlled
        self._end = len(model.joint_blocks) - 1
        # Where the last block is another one's, there is no telling where its feed-forward begins.
        self._feeds = technique == "db" and _name(self._end) not in self._earlier
        self._evaluation: Evaluation | None = None
        self._base: torch.Tensor | None = None
        self._foretold: torch.Tensor | None = None
        self._blocks = {**self._earlier, _name(0): self._first, _name(self._end): self._last}
        self.options = {**options, "patches_replace": {**replaced, "dit": self._blocks}}

    def _first(self, streams: Streams, extra: Mapping[str, Any]) -> Streams:
        embedded = streams["img"]
        if self._technique == "tea":
            self._base = embedded
            return streams if self._reuses(lambda: self._modulated(streams)) else self._original(0, streams, extra)
        left = self._original(0, streams, extra)
        self._base = left["img"]
        if not self._reuses(lambda: left["img"] - embedded) and self._controlled:
            self._base = self._base.clone()
        return left

    def _last(self, streams: Streams, extra: Mapping[str, Any]) -> Streams:
        if self._foretold is not None:
            hidden = self._fed(streams) if self._feeds else self._foretold
            return {**streams, "img": hidden}
        with _inputs(self._model.joint_blocks[-1].x_block.norm2 if self._feeds else None) as attended:
            left = self._original(self._end, streams, extra)
        hidden = attended[0] if self._feeds else left["img"]
        self._evaluation.keep(self._role, hidden - self._base)
        return left

    def _reuses(self, signal: Callable[[], torch.Tensor]) -> bool:
        self._evaluation, action = self._decide(Seen(self._base, signal))
        if action == "computed":
            return False
        self._foretold = self._base + self._evaluation.foretold(self._role)
        for index in range(1, self._end):
            self._blocks[_name(index)] = _skipped
        return True

    def _original(self, index: int, streams: Streams, extra: Mapping[str, Any]) -> Streams:
        replacement = self._earlier.get(_name(index))
        return extra["original_block"](streams) if replacement is None else replacement(streams, extra)

    def _modulated(self, streams: Streams) -> torch.Tensor:
        """The image stream as the first block's attention is given it."""
        block = self._model.joint_blocks[0].x_block
        shift, scale = _modulation(block, streams["vec"])[:2]
        return block.norm1(streams["img"]) * (1 + scale) + shift

    def _fed(self, streams: Streams) -> torch.Tensor:
        """The foretold image stream through the last block's feed-forward."""
        block = self._model.joint_blocks[-1].x_block
        shift, scale, gate = _modulation(block, streams["vec"])[3:6]
        return self._foretold + gate * block.mlp(block.norm2(self._foretold) * (1 + scale) + shift)


def _name(index: int) -> tuple[str, int]:
    """What a block is called by those who replace it."""
    return ("double_block", index)


def _skipped(streams: Streams, extra: Mapping[str, Any]) -> Streams:
    return streams


def _modulation(block: torch.nn.Module, vec: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Shift, scale and gate of the attention, of the feed-forward, and of a second attention: [B, 1, width] each."""
    return block.adaLN_modulation(vec)[:, None].split(vec.shape[-1], dim=-1)


@contextmanager
def _inputs(module: torch.nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """Collects what `module` is given; of None, nothing."""
    taken: list[torch.Tensor] = []
    if module is None:
        yield taken
        return
    handle = module.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    try:
        yield taken
    finally:
        handle.remove()
