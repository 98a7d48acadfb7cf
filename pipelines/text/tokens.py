"""Token ids and their weights, laid out as the encoders take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

CLIP_LENGTH = 77
"""Tokens that a CLIP sees at once, start and end included."""

T5_MIN_LENGTH = 77
"""A shorter prompt is padded to this for T5, as in SD3's training; a longer one is not cut."""

UNBROKEN = 8
"""A segment of fewer tokens moves to the next chunk whole when it does not fit; a longer one is broken."""

Group = tuple[Sequence[int], float]
"""The token ids of one segment of a prompt, without start and end, and the weight they share."""


@dataclass(frozen=True)
class TokenBatch:
    """One prompt for one encoder."""

    ids: torch.Tensor
    """[chunks, length], int64, padded."""
    weights: torch.Tensor
    """[chunks, length], float32; 1 for start, end and padding."""
    empty: torch.Tensor
    """[length], int64: what the encoder gets for an empty prompt of this length, from which weights are measured."""
    end: int
    """The id of the end token."""

    @property
    def weighted(self) -> bool:
        return bool((self.weights != 1.0).any())

    @property
    def first_end(self) -> int:
        """Where the first chunk's prompt ends: the token that a CLIP's pooled output is read at."""
        return int((self.ids[0] == self.end).int().argmax())


def clip_tokens(groups: Sequence[Group], *, start: int, end: int, pad: int, length: int = CLIP_LENGTH) -> TokenBatch:
    """A prompt of any length as chunks of `length - 2` tokens, each with a start and an end of its own."""
    room_in_all = length - 2
    chunks: list[list[tuple[int, float]]] = [[]]
    for ids, weight in groups:
        rest = [(token, weight) for token in ids]
        breakable = len(rest) >= UNBROKEN
        while rest:
            room = room_in_all - len(chunks[-1])
            if len(rest) <= room:
                chunks[-1] += rest
                break
            if breakable:
                chunks[-1] += rest[:room]
                rest = rest[room:]
            chunks.append([])
    rows = [[(start, 1.0), *chunk, (end, 1.0)] for chunk in chunks]
    return _batch(rows, [start, end], end=end, pad=pad, length=length)


def t5_tokens(groups: Sequence[Group], *, end: int, pad: int, min_length: int = T5_MIN_LENGTH) -> TokenBatch:
    """A prompt of any length as one chunk, padded to `min_length` at least."""
    row = [(token, weight) for ids, weight in groups for token in ids] + [(end, 1.0)]
    return _batch([row], [end], end=end, pad=pad, length=max(min_length, len(row)))


def _batch(rows: list[list[tuple[int, float]]], empty: list[int], *, end: int, pad: int, length: int) -> TokenBatch:
    padded = [row + [(pad, 1.0)] * (length - len(row)) for row in rows]
    return TokenBatch(
        ids=torch.tensor([[token for token, _ in row] for row in padded], dtype=torch.int64),
        weights=torch.tensor([[weight for _, weight in row] for row in padded], dtype=torch.float32),
        empty=torch.tensor(empty + [pad] * (length - len(empty)), dtype=torch.int64),
        end=end,
    )
