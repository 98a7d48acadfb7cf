"""One encoder's part of the conditioning: from a module on any device and in any dtype, as float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..errors import RequestError
from .tokens import TokenBatch


@dataclass(frozen=True)
class ClipOutput:
    hidden: torch.Tensor
    """[1, 77 x chunks, width]."""
    pooled: torch.Tensor
    """[1, pooled width], of the first chunk, without its weights."""


@torch.no_grad()
def encode_clip(module: nn.Module, tokens: TokenBatch, clip_skip: int = 0) -> ClipOutput:
    """Hidden states of a CLIP text model before its last `clip_skip + 1` layers, and its pooled output.

    `module` is transformers' `CLIPTextModel` (CLIP-L: pooled is the final norm's output at the first end token) or
    `CLIPTextModelWithProjection` (CLIP-G: the same, projected). Raises RequestError as `check_clip_skip` does, and for
    values that are not finite.
    """
    check_clip_skip(module, clip_skip)
    output = module(input_ids=_input_ids(module, tokens), output_hidden_states=True)
    pooled = output.last_hidden_state[:1, tokens.first_end]
    # Projected here and not taken from the module's output, which looks for the end token that its config names.
    projection = getattr(module, "text_projection", None)
    if projection is not None:
        pooled = projection(pooled)
    hidden = _finite(module, output.hidden_states[-(clip_skip + 2)])
    return ClipOutput(_weigh(hidden, tokens), _finite(module, pooled))


@torch.no_grad()
def encode_t5(module: nn.Module, tokens: TokenBatch) -> torch.Tensor:
    """Last hidden states [1, length, width] of transformers' `T5EncoderModel`.

    Padding is attended to, as in SD3's training. Raises RequestError for values that are not finite.
    """
    return _weigh(_finite(module, module(input_ids=_input_ids(module, tokens)).last_hidden_state), tokens)


def max_clip_skip(module: nn.Module) -> int:
    """The largest clip skip of a CLIP text model: it reads the first layer's output."""
    return max(0, module.config.num_hidden_layers - 2)


def check_clip_skip(module: nn.Module, clip_skip: int) -> None:
    """Raises RequestError where the CLIP has too few layers to skip that many."""
    allowed = max_clip_skip(module)
    if not 0 <= clip_skip <= allowed:
        raise RequestError(
            "invalidClipSkip",
            f"clipSkip is {clip_skip}, but this model's text encoder allows 0 to {allowed}: "
            f"it has {module.config.num_hidden_layers} layers.",
            "clipSkip",
            min=0,
            max=allowed,
        )


def _input_ids(module: nn.Module, tokens: TokenBatch) -> torch.Tensor:
    """[chunks, length], with the empty prompt as one row more where weights are measured from it."""
    ids = torch.cat([tokens.ids, tokens.empty[None]]) if tokens.weighted else tokens.ids
    return ids.to(module.get_input_embeddings().weight.device)


def _weigh(states: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
    """The chunks' states end to end [1, length x chunks, width], each token's scaled about the empty prompt's there."""
    chunks = states[: len(tokens.ids)]
    if tokens.weighted:
        empty, weights = states[-1], tokens.weights[..., None]
        chunks = torch.where(weights == 1.0, chunks, (chunks - empty) * weights + empty)
    return chunks.reshape(1, -1, chunks.shape[-1])


def _finite(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """`output` as float32 on the CPU; raises RequestError where it would only make a black picture."""
    output = output.float().cpu()
    if not output.isfinite().all():
        raise RequestError(
            "invalidModel",
            f"The text encoder {type(module).__name__} gives values that are not numbers: its file is damaged, or its "
            "numbers overflow in this dtype. Load it as bfloat16 or float32.",
            "model",
        )
    return output
