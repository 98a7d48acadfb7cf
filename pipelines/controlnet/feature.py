"""One ControlNet in the sampling loop."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..features import Call, Feature, Moment, Stage
from ..windows import window
from .file import ControlNetFile

if TYPE_CHECKING:
    import torch

    from ..placement import Resident
    from ..request import ControlNet

PROMPT_LEADS = 0.825
"""What each residual is weaker by than the one after it, where the prompt leads: the convention of the ControlNet
extension of AUTOMATIC1111's web UI ("My prompt is more important"); SD3 has none of its own.
"""


@dataclass
class Tally:
    """What a net did: the steps that it acted in, and how often it was evaluated."""

    steps: set[int] = field(default_factory=set)
    evaluations: int = 0


class Control(Feature):
    """A net's residuals for one result, within the window of `entry`.

    `hint` is [1, channels, h, w]; `blocks` are the transformer's; `beside` says whether other nets act too, and
    `brings` whether this one brings its module to the device: of several that share one, the first does.
    """

    def __init__(
        self,
        entry: ControlNet,
        file: ControlNetFile,
        hint: torch.Tensor,
        blocks: int,
        tally: Tally,
        *,
        beside: bool,
        brings: bool,
    ):
        self._entry = entry
        self._shape = file.shape
        self._resident = file.resident()
        self._hint = hint
        self._blocks = blocks
        self._tally = tally
        self._beside = beside
        self._brings = brings
        self._strengths = strengths(entry, file.shape.layers)
        self._stage: Stage | None = None
        self._placed_hint: torch.Tensor | None = None

    @property
    def residents(self) -> Sequence[Resident]:
        return (self._resident,) if self._brings else ()

    def activation_bytes(self, tokens: int) -> int:
        # What the net itself works with is gone when the transformer starts, and is no more than that needs. The sums
        # of several nets have a tensor a block.
        return tokens * (self._shape.layers + (self._blocks if self._beside else 0))

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        self._stage = stage
        self._placed_hint = self._hint.to(stage.device, self._dtype)
        try:
            yield
        finally:
            self._stage = self._placed_hint = None

    def signature(self, moment: Moment) -> Hashable:
        return moment.step in steps_of(self._entry, moment.steps)

    def residuals(self, call: Call) -> Sequence[torch.Tensor] | None:
        moment = call.moment
        if moment.step not in steps_of(self._entry, moment.steps):
            return None
        everywhere = self._entry.control_mode != "controlnet"
        rows = [row for row, conditional in enumerate(call.conditional) if conditional or everywhere]
        if not rows:
            return None
        self._tally.steps.add(moment.step)
        self._tally.evaluations += 1
        made = [
            _among(len(call.conditional), rows, (residual * strength).to(call.latents.dtype))
            for residual, strength in zip(self._evaluate(call, rows), self._strengths, strict=True)
        ]
        return [made[residual_of(block, self._blocks, len(made))] for block in range(self._blocks)]

    @property
    def _dtype(self) -> torch.dtype:
        return self._resident.module.pos_embed_input.proj.weight.dtype

    def _evaluate(self, call: Call, rows: Sequence[int]) -> Sequence[torch.Tensor]:
        """What the net makes of these rows of the call, by its layers: each [rows, tokens, width]."""
        import torch

        shape, latents = self._shape, call.latents[rows]
        # A net without a position table is given the transformer's own tokens.
        hidden = latents if shape.table is not None else self._stage.transformer.pos_embed(latents)
        pooled = call.pooled[rows] if shape.sees_pooled else torch.zeros_like(call.pooled[rows])
        context = call.context[rows].to(self._dtype) if shape.context_width is not None else None
        return self._resident.module(
            hidden_states=hidden.to(self._dtype),
            controlnet_cond=self._placed_hint.expand(len(rows), -1, -1, -1),
            encoder_hidden_states=context,
            pooled_projections=pooled.to(self._dtype),
            timestep=call.timestep[rows],
            return_dict=False,
        )[0]


def steps_of(entry: ControlNet, steps: int) -> range:
    """The steps, of `steps` that are executed, that the net acts in."""
    return window(steps, entry.start_step, entry.end_step, entry.start_step_percentage, entry.end_step_percentage)


def strengths(entry: ControlNet, layers: int) -> list[float]:
    """What the residual of each layer is multiplied by."""
    if entry.control_mode != "prompt":
        return [entry.weight] * layers
    return [entry.weight * PROMPT_LEADS ** (layers - 1 - layer) for layer in range(layers)]


def residual_of(block: int, blocks: int, layers: int) -> int:
    """Which residual of a net of `layers` is added after `block` of `blocks`.

    diffusers spreads them evenly, int(block / (blocks / layers)), since PR #10065 (December 2024). A net with a layer
    for each block that takes a residual, all but the last, was trained before, under block // (blocks // layers): each
    to its own block. With the later rule all of its residuals would come one block late.
    """
    if layers == blocks - 1:
        return min(block, layers - 1)
    return int(block / (blocks / layers))


def _among(count: int, rows: Sequence[int], part: torch.Tensor) -> torch.Tensor:
    """`part` [len(rows), ...] at `rows` of a tensor [count, ...] that is 0 elsewhere."""
    if len(rows) == count:
        return part
    whole = part.new_zeros(count, *part.shape[1:])
    whole[list(rows)] = part
    return whole
