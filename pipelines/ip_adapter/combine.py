"""How the embeddings of several guide images become one conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def combined(embeddings: torch.Tensor, method: str) -> torch.Tensor:
    """What the resampler is given for guide images whose embeddings e_0, e_1... are [images, tokens, width].

    concat gives them as they are: the resampler makes tokens of each, and the attention sees them all. The others give
    one embedding, [1, tokens, width]:

    * add: the sum of all e_i.
    * subtract: e_0 - mean(e_1, e_2...).
    * average: the mean of all e_i.
    * norm_average: the mean of all e_i / |e_i|, times the mean of all |e_i|, with the length |e_i| of each token
      taken over its features: so no picture counts for more because its tokens are longer.

    The methods are those of ComfyUI_IPAdapter_plus (`combine_embeds`; its documentation gives no formulas). There
    norm_average divides each feature by its length over the pictures instead, and keeps no lengths; SD3's resampler was
    trained on embeddings with theirs. A single image is its own sum and mean, so all methods agree on it.
    """
    if len(embeddings) == 1 or method == "concat":
        return embeddings
    if method == "add":
        return embeddings.sum(0, keepdim=True)
    if method == "subtract":
        return embeddings[:1] - embeddings[1:].mean(0, keepdim=True)
    if method == "average":
        return embeddings.mean(0, keepdim=True)
    lengths = embeddings.norm(dim=-1, keepdim=True)
    directions = embeddings / lengths.clamp_min(1e-12)
    return directions.mean(0, keepdim=True) * lengths.mean(0, keepdim=True)
