"""Model files to modules, without a network and without a second copy in memory.

`inspect_model` reads headers and says what the files hold; the `load_...` functions make stock diffusers and
transformers modules of it, whose weights are views of the mapped files. Configurations come from the shapes of the
tensors alone.
"""

from .cast import CastEmbedding, CastLinear
from .plan import inspect_model
from .source import ModelFiles, ModelPlan, Source
from .text import load_clip, load_t5
from .transformer import load_transformer
from .vae import SCALE, SHIFT, load_vae

__all__ = [
    "SCALE",
    "SHIFT",
    "CastEmbedding",
    "CastLinear",
    "ModelFiles",
    "ModelPlan",
    "Source",
    "inspect_model",
    "load_clip",
    "load_t5",
    "load_transformer",
    "load_vae",
]
