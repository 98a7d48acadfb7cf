"""A module made without memory, filled with the tensors of a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from . import faults
from .cast import CastEmbedding, CastLinear, dequantized, quantized
from .layout import FP8, Target, scale_of
from .source import Source

# Tensors up to this many numbers are checked in full, larger ones in a few runs, for each run makes the system read a
# good deal around it.
_CHECK_IN_FULL = 16_384
_RUNS, _RUN = 4, 4096


def fill(
    module: nn.Module,
    source: Source,
    targets: Sequence[Target],
    storage: torch.dtype | None,
    compute: torch.dtype,
    lazy_embeddings: bool = False,
) -> None:
    """Gives the parameters of `module`, made on the meta device, the tensors of `source`.

    Linear weights are kept in `storage` (None: as in the file) and cast when used where that is not `compute`; all
    else is in `compute`, Embeddings too unless `lazy_embeddings`. A tensor that needs no cast is a view of the mapped
    file. Casts are made one tensor at a time, so the memory taken is that of the result.
    Raises RequestError where a weight is NaN or infinite.
    """
    checked: set[str] = set()
    for target in targets:
        entry = source.tensors[target.source]
        stored = entry.read()
        if target.source not in checked:
            _check_finite(stored, target.source, source)
            checked.add(target.source)
        scale_entry = scale_of(source.tensors, target.source)
        scale = 1.0 if scale_entry is None else float(scale_entry.read().float())
        parent_name, _, attribute = target.name.rpartition(".")
        parent = module.get_submodule(parent_name)
        value = target.take(stored)
        if isinstance(parent, nn.Linear) and attribute == "weight":
            value, scale = _stored(value, scale, storage or value.dtype, compute)
            if value.dtype != compute:
                parent = _replace(
                    module,
                    parent_name,
                    CastLinear(parent.in_features, parent.out_features, parent.bias is not None, scale),
                    parent,
                )
        elif lazy_embeddings and isinstance(parent, nn.Embedding) and compute not in (value.dtype, storage):
            parent = _replace(
                module, parent_name, CastEmbedding(parent.num_embeddings, parent.embedding_dim, compute, scale)
            )
        elif attribute != "pos_embed" or value.dtype in FP8:
            # The position table is added in the wider of its type and the input's, so it needs no copy in another.
            value = dequantized(value, scale, compute)
        if attribute in parent._parameters:
            value = nn.Parameter(value, requires_grad=False)
        setattr(parent, attribute, value)
    module.requires_grad_(False).eval()


def check_complete(module: nn.Module) -> None:
    """Raises RuntimeError where a tensor of `module` still has no memory: such a module computes NaN without a word."""
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_meta:
            raise RuntimeError(f"{type(module).__name__}.{name} was not loaded.")


def _stored(value: torch.Tensor, scale: float, wanted: torch.dtype, compute: torch.dtype) -> tuple[torch.Tensor, float]:
    """A Linear weight as it is kept, with its scale."""
    if wanted not in FP8:
        return dequantized(value, scale, compute if wanted == torch.float64 else wanted), 1.0
    if value.dtype == wanted:
        return value, scale
    stored, own = quantized(dequantized(value, scale, torch.float32), wanted)
    return stored, own


def _replace(module: nn.Module, name: str, layer: nn.Module, old: nn.Module | None = None) -> nn.Module:
    if old is not None and old.bias is not None:
        layer.bias = old.bias
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, layer)
    return layer


def _check_finite(tensor: torch.Tensor, name: str, source: Source) -> None:
    flat = tensor.reshape(-1)
    if flat.numel() > _CHECK_IN_FULL:
        step = (flat.numel() - _RUN) // (_RUNS - 1)
        flat = flat.as_strided((_RUNS, _RUN), (step, 1), flat.storage_offset())
    if not torch.isfinite(flat.float()).all():
        raise faults.invalid(
            source.path,
            f'has NaN or infinite weights ("{name}"); the file is damaged, or was saved by a training that failed.',
            source.parameter,
        )
