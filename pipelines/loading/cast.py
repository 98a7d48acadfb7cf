"""Layers whose weights stay in memory as stored (fp8, fp16) and are cast when used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


class CastLinear(nn.Linear):
    """A Linear layer that computes in the type of its input, whatever its weight is stored in.

    The weight in effect is `weight * scale`. `scale` is a number and not a tensor: so it is applied with full
    precision in every type, and moves to no device. A `patch` changes that weight each time it is used, without the
    rounding of the type that it is stored in; it may not write to what it is given.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, scale: float = 1.0):
        super().__init__(in_features, out_features, bias=bias, device="meta")
        self.scale = scale
        self.patch: Callable[[torch.Tensor], torch.Tensor] | None = None

    def unpatched_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """`weight * scale` in `dtype`, [out_features, in_features]."""
        return dequantized(self.weight, self.scale, dtype)

    def effective_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """What the layer computes with, in `dtype`, [out_features, in_features]."""
        weight = self.unpatched_weight(dtype)
        return weight if self.patch is None else self.patch(weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return functional.linear(inputs, self.effective_weight(inputs.dtype), bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, stored={self.weight.dtype}, scale={self.scale:.6g}"


class CastEmbedding(nn.Embedding):
    """An Embedding whose rows are cast to `dtype` when looked up; the weight in effect is `weight * scale`."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype, scale: float = 1.0):
        super().__init__(num_embeddings, embedding_dim, device="meta")
        self.dtype = dtype
        self.scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        stored = self.weight
        # Looking up bytes works on every device; looking up fp8 does not.
        raw = stored.view(torch.uint8) if stored.dtype.itemsize == 1 else stored
        return dequantized(functional.embedding(ids, raw).view(stored.dtype), self.scale, self.dtype)


class CastFeedForward(nn.Module):
    """T5's gated feed-forward layer on the layers of a stock one.

    The stock layer casts what goes into `wo` to the type in which `wo` is stored: to fp8, or to an fp16 that
    overflows. This one computes `wo` in `dtype`.
    """

    def __init__(self, stock: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.wi_0 = stock.wi_0
        self.wi_1 = stock.wi_1
        self.wo = stock.wo
        self.act = stock.act
        self.dtype = dtype

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gated = self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states)
        return self.wo(gated.to(self.dtype))


def dequantized(stored: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """`stored * scale` in `dtype`: `stored` itself where that changes nothing."""
    value = stored.to(dtype)
    return value if scale == 1.0 else value * scale


def quantized(value: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, float]:
    """`value` as fp8 numbers of `dtype` and their scale, which makes the largest one the largest that `dtype` has."""
    limit = torch.finfo(dtype).max
    value = value.float()
    largest = value.abs().amax().item()
    scale = largest / limit if largest > 0 else 1.0
    return (value / scale).clamp_(-limit, limit).to(dtype), scale
