"""How long a prompt is for the text encoders, and where CLIP's first look at it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

from .tokenizer import Tokenizers
from .weights import weighted_segments

T5_TRAINED = 256
"""Tokens of T5 in the training of Stable Diffusion 3.5, at its end: a longer prompt is read, but less surely."""

MARKED = 5
"""Words before the end of the first chunk that tell where it is."""


@dataclass(frozen=True)
class Count:
    """The tokens of one prompt, start and end included; padding is not."""

    clip: int
    chunks: int
    """CLIPs see `CLIP_LENGTH` tokens at once; a longer prompt is seen in so many parts."""
    t5: int
    first_chunk_ends: str | None
    """The last words of the first chunk, None where there is no second one."""


def count(tokenizers: Tokenizers, prompt: str) -> Count:
    """The tokens of a prompt as it is encoded: words count by their tokens, weights not at all."""
    clip = tokenizers.clip_l(prompt)
    chunks = len(clip.ids)
    lengths = [int((row == clip.end).int().argmax()) - 1 for row in clip.ids]
    t5 = int((tokenizers.t5(prompt).ids[0] != 0).sum())
    end = None if chunks == 1 else _last_words(tokenizers, prompt, lengths[0])
    return Count(sum(lengths) + 2, chunks, t5, end)


def _last_words(tokenizers: Tokenizers, prompt: str, room: int) -> str:
    """The words before the end of the first `room` tokens of CLIP."""
    words: list[str] = []
    for text, _ in weighted_segments(prompt):
        found = re.findall(r"\S+", text)
        whole = _length(tokenizers, text)
        if whole > room:
            # The most words whose tokens fit; a word's end is the end of a token.
            low, high = 0, len(found)
            ends = list(accumulate(len(part) for part in re.findall(r"\s*\S+", text)))
            while low < high:
                middle = (low + high + 1) // 2
                fits = _length(tokenizers, text[: ends[middle - 1]]) <= room
                low, high = (middle, high) if fits else (low, middle - 1)
            words += found[:low]
            break
        words += found
        room -= whole
    return " ".join(words[-MARKED:])


def _length(tokenizers: Tokenizers, text: str) -> int:
    """CLIP's tokens of a text without weights."""
    plain = text.replace("(", "\\(").replace(")", "\\)")
    clip = tokenizers.clip_l(plain)
    return sum(int((row == clip.end).int().argmax()) - 1 for row in clip.ids)
