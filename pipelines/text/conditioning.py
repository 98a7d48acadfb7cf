"""What the transformer is told of a prompt, put together from what the text encoders give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from ..errors import RequestError
from .encode import ClipOutput
from .tokens import CLIP_LENGTH


@dataclass(frozen=True)
class Conditioning:
    """A prompt for the transformer: float32 on the CPU, shared with the cache, so not to be written to."""

    context: torch.Tensor
    """[1, tokens, context width], for the joint attention."""
    pooled: torch.Tensor
    """[1, pooled width], for the modulation."""


def combine(
    clip_l: ClipOutput | None,
    clip_g: ClipOutput | None,
    t5: torch.Tensor | None,
    *,
    context_width: int,
    pooled_width: int,
) -> Conditioning:
    """CLIP-L and CLIP-G side by side on the features, zeros up to `context_width`, then T5's tokens after theirs.

    The widths are the transformer's: 4096 and 2048 in the published models. CLIP-L's features are as many as its pooled
    ones, so a missing CLIP-L leaves `pooled_width` less CLIP-G's as zeros. Without any encoder all is zero.
    Layout: "Scaling Rectified Flow Transformers" (Esser et al. 2024), figure 2. Raises RequestError for encoders that
    do not fit the transformer.
    """
    parts = []
    clips = [output.hidden for output in (clip_l, clip_g) if output is not None]
    if clips:
        features = torch.cat(clips, dim=-1)
        if clip_l is None and clip_g is not None:
            features = pad(features, (_remaining(pooled_width, clip_g.pooled), 0))
        parts.append(pad(features, (0, _remaining(context_width, features))))
    if t5 is not None:
        if _remaining(context_width, t5):
            raise _misfit(context_width, t5)
        parts.append(t5)
    context = torch.cat(parts, dim=1) if parts else torch.zeros(1, CLIP_LENGTH, context_width)
    return Conditioning(context, _pool(clip_l, clip_g, pooled_width))


def _pool(clip_l: ClipOutput | None, clip_g: ClipOutput | None, width: int) -> torch.Tensor:
    """[1, width]: CLIP-L's at the left, CLIP-G's at the right, zeros for one that is missing."""
    if clip_l is not None and clip_g is not None:
        pooled = torch.cat([clip_l.pooled, clip_g.pooled], dim=-1)
        if _remaining(width, pooled):
            raise _misfit(width, pooled)
        return pooled
    if clip_l is not None:
        return pad(clip_l.pooled, (0, _remaining(width, clip_l.pooled)))
    if clip_g is not None:
        return pad(clip_g.pooled, (_remaining(width, clip_g.pooled), 0))
    return torch.zeros(1, width)


def _remaining(width: int, part: torch.Tensor) -> int:
    remaining = width - part.shape[-1]
    if remaining < 0:
        raise _misfit(width, part)
    return remaining


def _misfit(width: int, part: torch.Tensor) -> RequestError:
    return RequestError(
        "incompatibleTextEncoder",
        f"The text encoders do not fit the model: they give {part.shape[-1]} features where it takes {width}. "
        "Choose the CLIP-L, CLIP-G and T5-XXL that belong to it.",
        "model",
    )
