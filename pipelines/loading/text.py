"""The text encoders of a plan as transformers' own modules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .cast import CastFeedForward, CastLinear
from .fill import check_complete, fill
from .plan import component_targets
from .source import Source
from .text_keys import HEAD

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel


def load_clip(
    source: Source, *, storage: torch.dtype | None = None, compute: torch.dtype
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """clip_l as CLIPTextModel (its pooled output is used raw), clip_g as CLIPTextModelWithProjection, on the CPU.

    They are ready to compute in `compute`, their large weights kept in `storage` (None: as in the file).
    Raises RequestError where the file has changed, or has weights that are no numbers.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    shape = source.shape
    config = CLIPTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        projection_dim=shape.pooled_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // HEAD,
        max_position_embeddings=shape.positions,
        hidden_act="quick_gelu" if source.kind == "clip_l" else "gelu",
        # CLIP's vocabulary ends with the tokens of begin and end; the pooled output is taken at the first end.
        bos_token_id=shape.vocabulary - 2,
        eos_token_id=shape.vocabulary - 1,
    )
    with torch.device("meta"):
        module = (CLIPTextModel if source.kind == "clip_l" else CLIPTextModelWithProjection)(config)
    targets = component_targets(source)
    if not hasattr(module, "text_model"):
        # transformers 5 has no inner `text_model` in CLIPTextModel; files keep the name.
        targets = [replace(target, name=target.name.removeprefix("text_model.")) for target in targets]
    fill(module, source, targets, storage, compute, lazy_embeddings=True)
    embeddings = getattr(module, "text_model", module).embeddings
    # Not saved in files, and on the meta device it stays without values.
    embeddings.position_ids = torch.arange(shape.positions).expand(1, -1)
    check_complete(module)
    return module


def load_t5(source: Source, *, storage: torch.dtype | None, compute: torch.dtype) -> T5EncoderModel:
    """The T5 encoder on the CPU, to compute in `compute`, its large weights kept in `storage` (None: as in the file).

    With `compute` fp16 the output layers of the feed-forward blocks compute in fp32, as transformers does it: T5's
    hidden states overflow fp16 (https://github.com/huggingface/transformers/issues/20287).
    Raises RequestError where the file has changed, or has weights that are no numbers.
    """
    from transformers import T5Config, T5EncoderModel

    shape = source.shape
    config = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        d_kv=shape.head_width,
        d_ff=shape.intermediate,
        num_layers=shape.layers,
        num_heads=shape.heads,
        relative_attention_num_buckets=shape.buckets,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        module = T5EncoderModel(config)
    fill(module, source, component_targets(source), storage, compute, lazy_embeddings=True)
    # One token table under two names.
    module.set_input_embeddings(module.shared)
    for block in module.encoder.block:
        feed_forward = block.layer[1]
        if compute == torch.float16 and not isinstance(feed_forward.DenseReluDense.wo, CastLinear):
            feed_forward.DenseReluDense.wo = _cast(feed_forward.DenseReluDense.wo)
        if isinstance(feed_forward.DenseReluDense.wo, CastLinear):
            wide = torch.float32 if compute == torch.float16 else compute
            feed_forward.DenseReluDense = CastFeedForward(feed_forward.DenseReluDense, wide)
    check_complete(module)
    return module.eval()


def _cast(layer: torch.nn.Linear) -> CastLinear:
    """`layer` computing in the type of its input, on the same weight."""
    cast = CastLinear(layer.in_features, layer.out_features, layer.bias is not None)
    cast.weight, cast.bias = layer.weight, layer.bias
    return cast
