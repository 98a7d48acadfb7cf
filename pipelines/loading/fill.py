"""A module made without memory, filled with the tensors of a file."""

from __future__ import annotations

import enum
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from . import faults
from .cast import CastEmbedding, CastLinear, dequantized, quantized
from .layout import FP8, Target, scale_of
from .source import Source

Item = TypeVar("Item")

# Tensors up to this many numbers are checked in full, larger ones in a few runs, for each run makes the system read a
# good deal around it.
_CHECK_IN_FULL = 16_384
_RUNS, _RUN = 4, 4096


class Role(enum.Enum):
    """What a parameter is used for, which says how it is kept."""

    LINEAR = enum.auto()
    LOOKED_UP = enum.auto()
    OTHER = enum.auto()


@dataclass(frozen=True)
class Value:
    """A parameter as it is kept; in effect it is `tensor * scale`."""

    tensor: torch.Tensor
    scale: float = 1.0


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

    def role(target: Target) -> Role:
        parent_name, _, attribute = target.name.rpartition(".")
        parent = module.get_submodule(parent_name)
        if isinstance(parent, nn.Linear) and attribute == "weight":
            return Role.LINEAR
        return Role.LOOKED_UP if lazy_embeddings and isinstance(parent, nn.Embedding) else Role.OTHER

    assign(module, targets, values(source, targets, role, storage, compute), compute)


def values(
    source: Source,
    targets: Sequence[Target],
    role: Callable[[Target], Role],
    storage: torch.dtype | None,
    compute: torch.dtype,
) -> Iterator[Value]:
    """Reads, checks and casts the value of each target, in their order and when asked for; no module is needed.

    Raises RequestError where a weight is NaN or infinite.
    """
    checked: set[str] = set()
    for target in targets:
        stored = source.tensors[target.source].read()
        if target.source not in checked:
            _check_finite(stored, target.source, source)
            checked.add(target.source)
        scale_entry = scale_of(source.tensors, target.source)
        scale = 1.0 if scale_entry is None else float(scale_entry.read().float())
        taken, kind = target.take(stored), role(target)
        if kind is Role.LINEAR:
            yield _stored(taken, scale, storage or taken.dtype, compute)
        elif kind is Role.LOOKED_UP and compute not in (taken.dtype, storage):
            yield Value(taken, scale)
        elif target.name.rpartition(".")[2] == "pos_embed" and taken.dtype not in FP8:
            # The position table is added in the wider of its type and the input's, so it needs no copy in another.
            yield Value(taken)
        else:
            yield Value(dequantized(taken, scale, compute))


def assign(module: nn.Module, targets: Sequence[Target], values: Iterable[Value], compute: torch.dtype) -> None:
    """Makes `values` the parameters of `module` that `targets` name, in layers that cast what is not in `compute`."""
    for target, value in zip(targets, values, strict=True):
        parent_name, _, attribute = target.name.rpartition(".")
        parent = module.get_submodule(parent_name)
        if value.tensor.dtype != compute and attribute == "weight":
            if isinstance(parent, nn.Linear):
                layer = CastLinear(parent.in_features, parent.out_features, parent.bias is not None, value.scale)
                parent = _replace(module, parent_name, layer, parent)
            elif isinstance(parent, nn.Embedding):
                layer = CastEmbedding(parent.num_embeddings, parent.embedding_dim, compute, value.scale)
                parent = _replace(module, parent_name, layer)
        kept = value.tensor
        setattr(parent, attribute, nn.Parameter(kept, requires_grad=False) if attribute in parent._parameters else kept)
    module.requires_grad_(False).eval()


@contextmanager
def in_background(items: Iterable[Item]) -> Iterator[Callable[[], list[Item]]]:
    """Goes through `items` in a thread while the body of `with` does other work.

    What it yields waits for the thread and gives all items, or raises what they raised. When the `with` ends, so does
    the thread: early, after the item at hand, where the body failed.
    """
    made: list[Item] = []
    errors: list[BaseException] = []
    left = threading.Event()
    # The mode is the thread's own in torch, and a tensor's nature for good.
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        try:
            with torch.inference_mode(inference):
                made.extend(itertools.takewhile(lambda _: not left.is_set(), items))
        except BaseException as error:
            # Whoever keeps the error must not keep gigabytes of weights with it.
            made.clear()
            errors.append(error)

    def wait() -> list[Item]:
        thread.join()
        if errors:
            raise errors.pop()
        return made

    # A daemon, so that an interpreter that ends meanwhile does not wait for gigabytes to be read.
    thread = threading.Thread(target=work, name="sd3-local-loading", daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        left.set()
        thread.join()


def check_complete(module: nn.Module) -> None:
    """Raises RuntimeError where a tensor of `module` still has no memory: such a module computes NaN without a word."""
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_meta:
            raise RuntimeError(f"{type(module).__name__}.{name} was not loaded.")


def _stored(value: torch.Tensor, scale: float, wanted: torch.dtype, compute: torch.dtype) -> Value:
    """A Linear weight as it is kept."""
    if wanted not in FP8:
        return Value(dequantized(value, scale, compute if wanted == torch.float64 else wanted))
    if value.dtype == wanted:
        return Value(value, scale)
    return Value(*quantized(dequantized(value, scale, torch.float32), wanted))


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
