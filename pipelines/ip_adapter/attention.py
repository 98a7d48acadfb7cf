"""What guide pictures add to the attention of one block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PENALTY_WIDTH = 1280
"""The width at which the penalty of an embed scaling is 1: that of the middle of SDXL's UNet, where it comes from."""


@dataclass
class Shown:
    """What an adapter shows the blocks in one call: `tokens` [B, tokens, width] of its pictures, and the timestep,
    `time` [B, features].
    """

    tokens: torch.Tensor | None = None
    time: torch.Tensor | None = None


class PictureTerm:
    """What one adapter adds in one block: another attention, of the image's tokens to themselves and to the pictures'.

    With q, k, v of the image's tokens under the adapter's own norms, k_p and v_p of the pictures' tokens, and the
    weight w, this is diffusers' SD3IPAdapterJointAttnProcessor2_0:

        w softmax(q [k, k_p]) [v, v_p]

    `scaling` says what else w reaches, with u = |w| and the penalty c = width / 1280:

    * only_v: as it stands. w scales the values, and so the term: diffusers' `scale`.
    * kv: the keys are u k_p, so w also makes the image look at the pictures more, or less.
    * kv_penalty_c: as kv, with c w for w.
    * k_mean_v_penalty_c: with c w for w, the keys are u k_p, and of the pictures' values only the mean is scaled:
      v_p - mean(v_p) + u mean(v_p); what tells their tokens apart stays. The image's own values are u v.

    k_p is scaled after its norm, which would cancel it. At u = 1 all are the same. The scalings are those of
    ComfyUI_IPAdapter_plus (`embeds_scaling`), whose term has no tokens of the image in it.

    A negative w steers away from the pictures. It takes away what they add, and not what the image's tokens add in the
    same sum: for w < 0 the image's values are 0, and the term is the negative of that of -w. Taking all of it away
    also steers, but pictures of sd3-nano fell apart under it.
    """

    def __init__(self, layers: torch.nn.Module, shown: Shown, weight: float, scaling: str):
        self._layers = layers
        self._shown = shown
        self._scaling = scaling
        self._sign = math.copysign(1.0, weight)
        self._strength = abs(weight)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The term [B, heads, tokens, head width] for the image's q, k, v of this shape, before their norms."""
        import torch

        layers = self._layers
        pictures = layers.norm_ip(self._shown.tokens, temb=self._shown.time)
        picture_key = layers.norm_ip_k(_heads(layers.to_k_ip(pictures), query.shape[1])).to(query.dtype)
        picture_value = _heads(layers.to_v_ip(pictures), query.shape[1]).to(query.dtype)
        strength = self._strength
        if "penalty" in self._scaling:
            strength *= query.shape[1] * query.shape[3] / PENALTY_WIDTH
        if self._scaling != "only_v":
            picture_key = picture_key * strength
        if self._scaling == "k_mean_v_penalty_c":
            mean = picture_value.mean(2, keepdim=True)
            picture_value = picture_value - mean + mean * strength
            value, strength = value * strength, 1.0
        if self._sign < 0:
            value = torch.zeros_like(value)
        attended = torch.nn.functional.scaled_dot_product_attention(
            layers.norm_q(query).to(query.dtype),
            torch.cat([layers.norm_k(key).to(query.dtype), picture_key], dim=2),
            torch.cat([value, picture_value], dim=2),
        )
        return attended * (self._sign * strength)


class GuidedAttention:
    """diffusers' JointAttnProcessor2_0 of a block, with what guide pictures add to the image's side of it."""

    def __init__(self, terms: Sequence[PictureTerm]):
        self._terms = terms

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The attention's result for the image [B, tokens, width] and for the text; the last block makes nothing of
        the latter. SD3 has no `attention_mask`.
        """
        import torch

        image = [_heads(layer(hidden_states), attn.heads) for layer in (attn.to_q, attn.to_k, attn.to_v)]
        text = [
            _heads(layer(encoder_hidden_states), attn.heads)
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        norms = ((attn.norm_q, attn.norm_added_q), (attn.norm_k, attn.norm_added_k), (None, None))
        joint = [
            torch.cat([_normed(own, of_image), _normed(added, of_text)], dim=2)
            for (own, added), of_image, of_text in zip(norms, image, text, strict=True)
        ]
        attended = torch.nn.functional.scaled_dot_product_attention(*joint)
        of_image, of_text = attended.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=2)
        for term in self._terms:
            of_image = of_image + term(*image)
        projection, dropout = attn.to_out
        of_image, of_text = dropout(projection(_merged(of_image))), _merged(of_text)
        return of_image, of_text if attn.context_pre_only else attn.to_add_out(of_text)


def _heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, tokens, width] as [B, heads, tokens, width / heads]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merged(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(1, 2).flatten(2)


def _normed(norm: torch.nn.Module | None, tokens: torch.Tensor) -> torch.Tensor:
    return tokens if norm is None else norm(tokens)
