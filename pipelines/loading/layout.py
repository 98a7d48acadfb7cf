"""What a module's parameters are called and shaped in a file, and whether a file agrees."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from . import faults
from .checkpoint import Entry, Table

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)

# Suffixes beside `.weight` that quantised files add to a layer; they are no parameters of the architecture.
QUANT_SUFFIXES = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale", ".comfy_quant")
# Both published forms of one scale a layer: weight = stored * scale.
_SCALES = (".scale_weight", ".weight_scale")
# Suffixes of formats that store a weight in other ways than one fp8 number each.
_OTHER_QUANT = (".absmax", ".quant_map", ".qweight", ".qzeros", ".weight_scale_2", ".SCB", ".g_idx")


@dataclass(frozen=True)
class Target:
    """Where one parameter of a module comes from in a file.

    `shape` is the parameter's own. `part` is (index, count) where the file stores `count` parameters of this shape
    stacked along the first dimension. `swap` says that the file has the two halves of the first dimension in the
    other order (shift, scale against scale, shift). `pointwise` allows the file to have a matrix as a 1x1
    convolution.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    part: tuple[int, int] = (0, 1)
    swap: bool = False
    pointwise: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that the file's tensor must have."""
        return (self.shape[0] * self.part[1], *self.shape[1:])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a file's tensor of `shape` can give this parameter."""
        return shape == self.stored_shape or (self.pointwise and shape == (*self.stored_shape, 1, 1))

    def take(self, stored: torch.Tensor) -> torch.Tensor:
        """This parameter out of the file's tensor: a view of it, except where halves are swapped."""
        index, count = self.part
        rows = stored.shape[0] // count
        taken = stored.narrow(0, index * rows, rows).reshape(self.shape)
        if self.swap:
            first, second = taken.chunk(2, dim=0)
            taken = torch.cat([second, first], dim=0)
        return taken


def linear(name: str, source: str, rows: int, columns: int, bias: bool = True, **how: object) -> list[Target]:
    """The targets of a Linear layer, or with `pointwise` of one that files may have as a 1x1 convolution."""
    targets = [Target(f"{name}.weight", f"{source}.weight", (rows, columns), **how)]
    if bias:
        targets.append(Target(f"{name}.bias", f"{source}.bias", (rows,), **{**how, "pointwise": False}))
    return targets


def vector(name: str, source: str, size: int, bias: bool = True) -> list[Target]:
    """The targets of a normalisation layer over `size` features."""
    return [
        Target(f"{name}.{end}", f"{source}.{end}", (size,)) for end in (("weight", "bias") if bias else ("weight",))
    ]


def scale_of(table: Table, source: str) -> Entry | None:
    """The entry with the scale of a scaled fp8 weight, or None."""
    if source.endswith(".weight"):
        for suffix in _SCALES:
            if (entry := table.get(source.removesuffix(".weight") + suffix)) is not None:
                return entry
    return None


def count_blocks(table: Table, prefix: str) -> int:
    """How many numbered blocks `prefix` has ("joint_blocks."): the highest number plus one, 0 without any.

    A number beyond any real model counts as no block: what is sized by the result must stay small whatever the file
    says.
    """
    numbers = {
        int(head)
        for name in table
        if name.startswith(prefix) and (head := name[len(prefix) :].split(".", 1)[0]).isdecimal() and len(head) < 4
    }
    return max(numbers) + 1 if numbers else 0


def require(table: Table, names: Sequence[str], thing: str, path: Path, parameter: str) -> None:
    """Raises RequestError where one of `names` is not in the table; `thing` is what the file should hold, in words."""
    lacking = [name for name in names if name not in table]
    if lacking:
        raise faults.invalid(
            path,
            f'lacks {len(lacking)} of the tensors of {thing}, the first is "{lacking[0]}"; the file is '
            "incomplete, download it again.",
            parameter,
        )


def verify(table: Table, targets: Sequence[Target], thing: str, path: Path, parameter: str) -> None:
    """Raises RequestError unless every target has a tensor of the right shape and a type that can be read.

    What is wrong is told in this order: how weights are stored, which are not there, which have another shape.
    """
    _verify_storage(table, thing, path, parameter)
    require(table, list(dict.fromkeys(target.source for target in targets)), thing, path, parameter)
    for target in targets:
        entry = table[target.source]
        if entry.dtype not in FLOATS:
            raise faults.unsupported(
                path,
                f'stores "{target.source}" as {entry.type_name}, which is not supported; use a file in '
                "fp32, fp16, bf16 or fp8.",
                parameter,
            )
        if not target.fits(entry.shape):
            raise faults.invalid(
                path,
                f'does not fit together: "{target.source}" has the shape {list(entry.shape)}, and the '
                f"rest of {thing} needs {list(target.stored_shape)}.",
                parameter,
            )
        scale = scale_of(table, target.source)
        if scale is not None and (scale.numel != 1 or scale.dtype not in FLOATS):
            raise faults.unsupported(
                path,
                f'scales "{target.source}" by {list(scale.shape)} numbers of type {scale.type_name}; '
                "one number a layer is supported.",
                parameter,
            )


def _verify_storage(table: Table, thing: str, path: Path, parameter: str) -> None:
    for name, entry in table.items():
        if name.endswith(_OTHER_QUANT) or ".quant_state." in name:
            raise faults.unsupported(
                path,
                f'holds {thing} in a quantised form that is not supported ("{name}"); use a file in fp16, bf16 or fp8.',
                parameter,
            )
        if name.endswith(".comfy_quant") and entry.dtype == torch.uint8:
            try:
                form = str(json.loads(bytes(entry.read().tolist()))["format"])
            except (ValueError, KeyError, TypeError):
                form = "unknown"
            if form not in ("float8_e4m3fn", "float8_e5m2"):
                raise faults.unsupported(
                    path,
                    f'holds {thing} quantised as "{form[:40]}", which is not supported; use a file in '
                    "fp16, bf16 or fp8.",
                    parameter,
                )


def storage_dtype(table: Table, targets: Iterable[Target]) -> torch.dtype:
    """The type in which most bytes of the large weights (two or more dimensions) are stored."""
    numbers: dict[torch.dtype, int] = {}
    for source in {target.source for target in targets}:
        entry = table[source]
        if len(entry.shape) > 1 and entry.dtype is not None:
            numbers[entry.dtype] = numbers.get(entry.dtype, 0) + entry.numel
    return max(numbers, key=lambda dtype: numbers[dtype])
