"""What `inspect_model` hands out: components that were found in files, but not read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from .checkpoint import Table
from .text_keys import ClipShape, T5Shape
from .transformer_keys import TransformerShape
from .vae_keys import VAEShape


@dataclass(frozen=True)
class ModelFiles:
    """The files a user chose.

    `model` is a checkpoint file or a diffusers folder. `vae` None takes the VAE from `model`. `text_encoders` are
    files of clip_l, clip_g and t5xxl in any order, told apart by their tensors; they win over those in `model`. Their
    places are those of the request's fields textEncoder1 to textEncoder3; None is a field that was left out.
    """

    model: Path
    vae: Path | None = None
    text_encoders: tuple[Path | None, ...] = ()


@dataclass(frozen=True)
class Source:
    """One component, found but not read.

    `kind` is "transformer", "vae", "clip_l", "clip_g" or "t5"; `path` its file or component folder; `parameter` the
    request's field that chose it. `dtype` is how most of its large weights are stored (fp8 also for scaled fp8),
    `parameters` their number, `nbytes` their size in the file. `tensors` has the names without the component's
    prefix.
    """

    kind: str
    path: Path
    parameter: str
    shape: TransformerShape | VAEShape | ClipShape | T5Shape
    dtype: torch.dtype
    parameters: int
    nbytes: int
    tensors: Table = field(compare=False, repr=False)


@dataclass(frozen=True)
class ModelPlan:
    """All components of a model, checked against each other, none of them read.

    `max_side` is the longest side of a picture in pixels that the position table allows; `native_side` the side of the
    pictures it was trained for, None where that is not known; `context_width` and
    `pooled_width` are the features that the transformer wants of a prompt's tokens and of its pooled vector. A
    component that no file has is None.
    """

    transformer: Source
    vae: Source | None
    clip_l: Source | None
    clip_g: Source | None
    t5: Source | None
    name: str
    max_side: int
    native_side: int | None
    context_width: int
    pooled_width: int
