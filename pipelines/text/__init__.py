"""Prompts to SD3's conditioning, as ComfyUI builds it."""

from .cache import ConditioningCache
from .conditioning import Conditioning, combine
from .encode import ClipOutput, encode_clip, encode_t5
from .encoders import Place, TextEncoders
from .tokenizer import TokenizerFiles, Tokenizers
from .tokens import TokenBatch
from .weights import weighted_segments

__all__ = [
    "ClipOutput",
    "Conditioning",
    "ConditioningCache",
    "Place",
    "TextEncoders",
    "TokenBatch",
    "TokenizerFiles",
    "Tokenizers",
    "combine",
    "encode_clip",
    "encode_t5",
    "weighted_segments",
]
