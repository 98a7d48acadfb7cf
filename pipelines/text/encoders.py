"""Up to three text encoders that turn prompts into conditioning, one of them at work at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from torch import nn

from .cache import ConditioningCache
from .conditioning import Conditioning, combine
from .encode import check_clip_skip, encode_clip, encode_t5, max_clip_skip
from .tokenizer import Tokenizers

Output = TypeVar("Output")

Place = Callable[[nn.Module], AbstractContextManager[Any]]
"""Holds a module on its device for as long as the context is open."""


class TextEncoders:
    """transformers' `CLIPTextModel`, `CLIPTextModelWithProjection` and `T5EncoderModel`, any of which may be missing.

    `context_width` and `pooled_width` are the transformer's. The cache belongs to these modules.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        *,
        context_width: int,
        pooled_width: int,
        clip_l: nn.Module | None = None,
        clip_g: nn.Module | None = None,
        t5: nn.Module | None = None,
    ):
        self.tokenizers = tokenizers
        self.context_width = context_width
        self.pooled_width = pooled_width
        self.clip_l = clip_l
        self.clip_g = clip_g
        self.t5 = t5
        self.cache = ConditioningCache()

    def encode(
        self,
        prompts: Sequence[str | None],
        clip_skip: int = 0,
        *,
        place: Place = nullcontext,
        variant: Hashable = None,
    ) -> list[Conditioning]:
        """The conditioning of each prompt; None is an empty one.

        `place(module)` is entered around each encoder's work on all prompts, so that the host can hold one encoder on
        the GPU at a time; it is not called where every prompt's conditioning is cached. A `place` that also changes the
        encoders' weights says so by a `variant`. `clip_skip` is for the CLIPs, not for T5. Raises RequestError for a
        clip skip that a CLIP has too few layers for (before anything is placed), for encoders that do not fit the
        transformer, and for one whose output is not finite.
        """
        clips = [clip for clip in (self.clip_l, self.clip_g) if clip is not None]
        if clips:
            check_clip_skip(min(clips, key=max_clip_skip), clip_skip)
        texts = [prompt or "" for prompt in prompts]
        known = {text: self.cache.get(text, clip_skip, variant) for text in texts}
        missing = [text for text, conditioning in known.items() if conditioning is None]
        if missing:
            for text, conditioning in zip(missing, self._encode(missing, clip_skip, place), strict=True):
                self.cache.put(text, clip_skip, conditioning, variant)
                known[text] = conditioning
        return [known[text] for text in texts]

    def _encode(self, texts: list[str], clip_skip: int, place: Place) -> list[Conditioning]:
        tokens = self.tokenizers
        clip_l = _each(texts, self.clip_l, place, lambda clip, text: encode_clip(clip, tokens.clip_l(text), clip_skip))
        clip_g = _each(texts, self.clip_g, place, lambda clip, text: encode_clip(clip, tokens.clip_g(text), clip_skip))
        t5 = _each(texts, self.t5, place, lambda t5, text: encode_t5(t5, tokens.t5(text)))
        widths = {"context_width": self.context_width, "pooled_width": self.pooled_width}
        return [combine(*parts, **widths) for parts in zip(clip_l, clip_g, t5, strict=True)]


def _each(
    texts: list[str], module: nn.Module | None, place: Place, encode: Callable[[nn.Module, str], Output]
) -> Sequence[Output | None]:
    """`encode` of each text while the module is placed; None for each where there is no such encoder."""
    if module is None:
        return [None] * len(texts)
    with place(module):
        return [encode(module, text) for text in texts]
