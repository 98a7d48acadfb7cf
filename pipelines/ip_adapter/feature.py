"""The IP-Adapters of a run in the sampling loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..features import Call, Feature, Stage
from .attention import GuidedAttention, PictureTerm, Shown

if TYPE_CHECKING:
    import torch

    from ..placement import Resident


@dataclass
class Tally:
    """What an adapter did: the steps that it acted in, and in how many calls of the transformer."""

    steps: set[int] = field(default_factory=set)
    evaluations: int = 0


@dataclass(frozen=True)
class Acting:
    """An adapter that is run: its module, the combined embeddings [images, tokens, width] of its pictures, how
    `scaling` uses its weight in each block, and what it did.
    """

    resident: Resident
    embeddings: torch.Tensor
    weights: Sequence[float]
    scaling: str
    tally: Tally


class PicturePrompts(Feature):
    """All adapters of a run: each adds its term to the attention of the blocks in which it has a weight.

    Second attentions of a block (`attn2` of SD3.5 Medium) are left alone, since adapters have no layers for them.
    """

    def __init__(self, adapters: Sequence[Acting]):
        self._adapters = adapters
        self._shown = [Shown() for _ in adapters]
        self._embeddings: list[torch.Tensor] = []
        self._told: list[Call] = []

    @property
    def residents(self) -> Sequence[Resident]:
        """Each module once, for two entries may have one file."""
        return list({id(adapter.resident): adapter.resident for adapter in self._adapters}.values())

    def activation_bytes(self, tokens: int) -> int:
        # A term's own q, k, v and result take less than the feed-forward layer, which is counted; what each adapter
        # shows stays meanwhile, and is mostly far smaller than the image.
        return len(self._adapters) * tokens

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        attentions = [block.attn for block in stage.transformer.transformer_blocks]
        processors = [attention.processor for attention in attentions]
        try:
            self._embeddings = [
                adapter.embeddings.to(stage.device, _dtype(adapter.resident.module)) for adapter in self._adapters
            ]
            for index, attention in enumerate(attentions):
                terms = self._terms(index)
                if terms:
                    attention.set_processor(GuidedAttention(terms))
            yield
        finally:
            for attention, processor in zip(attentions, processors, strict=True):
                attention.set_processor(processor)
            self._embeddings, self._told = [], []
            for shown in self._shown:
                shown.tokens = shown.time = None

    def attention(self, call: Call) -> Mapping[str, Any]:
        # A step cache asks again for a call whose blocks it goes on with, after it has asked for another one.
        self._told = [told for told in self._told if told.moment is call.moment]
        is_new = all(told is not call for told in self._told)
        if is_new:
            self._told.append(call)
        # Not as arguments: a block hands them to its second attention too, whose processor would warn of them.
        for adapter, embeddings, shown in zip(self._adapters, self._embeddings, self._shown, strict=True):
            shown.tokens, shown.time = project(adapter.resident.module.image_proj, embeddings, call)
            adapter.tally.steps.add(call.moment.step)
            adapter.tally.evaluations += is_new
        return {}

    def _terms(self, block: int) -> list[PictureTerm]:
        return [
            PictureTerm(adapter.resident.module.ip_adapter[block], shown, adapter.weights[block], adapter.scaling)
            for adapter, shown in zip(self._adapters, self._shown, strict=True)
            if adapter.weights[block] != 0
        ]


def project(resampler: torch.nn.Module, embeddings: torch.Tensor, call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens [B, images * queries, width] of the pictures whose embeddings are [images, tokens, features], at the
    call's timestep, and what the blocks are told of that, [B, hidden].

    The negative prompt is shown zeros in place of embeddings, as the adapters were trained and as diffusers does it.
    """
    import torch

    rows = len(call.conditional)
    shown = torch.cat([embeddings if conditional else torch.zeros_like(embeddings) for conditional in call.conditional])
    tokens, time = resampler(shown, call.timestep.repeat_interleave(len(embeddings)))
    return tokens.reshape(rows, -1, tokens.shape[-1]), time[:: len(embeddings)]


def _dtype(adapter: torch.nn.Module) -> torch.dtype:
    return adapter.image_proj.norm_out.weight.dtype
