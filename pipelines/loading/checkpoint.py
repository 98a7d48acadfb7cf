"""Model files as tables of tensors: only the header is read, a tensor becomes a view of the mapped file when asked for.

The safetensors format is read here and not by its library for three reasons: the header of a 10 GB file takes
milliseconds and gives shapes without tensors, every damage gets its own sentence, and one mapping serves all modules
of a file.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from . import faults
from .pickles import is_pickle, read_pickle

# The format's own limit; a larger number in the first eight bytes means that these are no length.
HEADER_LIMIT = 100_000_000

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file, known but not read.

    `dtype` is None where the file's type (`type_name`) is one that torch has no name for. `read()` gives a tensor
    that shares the mapped file's memory; writing to it changes a private copy of the touched pages, never the file.
    """

    type_name: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize if self.dtype is not None else 0


Table = Mapping[str, Entry]


class Stamp(NamedTuple):
    """A file at one time. `node` is its inode: a file that takes another's place within one tick of the clock that
    dates files, and has its size, is told apart by nothing else."""

    size: int
    modified: int
    node: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


def read_table(path: Path, parameter: str) -> dict[str, Entry]:
    """The tensors of the file at `path` by name.

    Raises RequestError where the file is not there, is damaged, or is not a file of tensors.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            start = file.read(16)
            if is_pickle(start):
                return {
                    name: Entry(
                        str(tensor.dtype).removeprefix("torch."),
                        tensor.dtype,
                        tuple(tensor.shape),
                        lambda tensor=tensor: tensor,
                    )
                    for name, tensor in read_pickle(path, parameter).items()
                }
            length = _header_length(path, start, status.st_size, parameter)
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError:
        raise faults.missing(path, parameter) from None
    except IsADirectoryError:
        raise faults.invalid(path, "is a folder where a file is needed.", parameter) from None
    except OSError as error:
        raise faults.invalid(path, f"cannot be read: {error.strerror or error}.", parameter) from None
    header = _parse(path, raw, parameter)
    return _entries(path, header, 8 + length, Stamp.of(status), parameter)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file, which `read_table` has read, carries in its header; none in other files."""
    with path.open("rb") as file:
        start = file.read(8)
        if is_pickle(start + file.read(1)):
            return {}
        file.seek(8)
        metadata = json.loads(file.read(int.from_bytes(start, "little"))).get("__metadata__")
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _header_length(path: Path, start: bytes, size: int, parameter: str) -> int:
    """The length of the JSON header in bytes, once the first 16 bytes of a file of `size` bytes allow one."""
    again = "download or copy it again."
    if size == 0:
        raise faults.invalid(path, f"is empty (0 bytes); {again}", parameter)
    if start.startswith(b"GGUF"):
        raise faults.unsupported(
            path,
            "is a GGUF file, which is not supported; use the .safetensors file of the model in fp16, bf16 or fp8.",
            parameter,
        )
    if start.startswith(b"version https:/"):
        raise faults.invalid(
            path,
            "is only a Git LFS pointer, not the weights themselves; run `git lfs pull` or download the file.",
            parameter,
        )
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise faults.invalid(
            path, f"is a web page, not a model: the download was refused or needs a login; {again}", parameter
        )
    if len(start) < 10 or start[8:9] != b"{":
        raise faults.invalid(path, f"is not a safetensors file; {again}", parameter)
    length = int.from_bytes(start[:8], "little")
    if length > HEADER_LIMIT:
        raise faults.invalid(
            path,
            f"is damaged: its header claims {length:,} bytes, and the format allows {HEADER_LIMIT:,}; {again}",
            parameter,
        )
    if 8 + length > size:
        raise faults.invalid(
            path,
            f"is cut short: its header alone needs {8 + length:,} bytes and the file has {size:,}; {again}",
            parameter,
        )
    return length


def _parse(path: Path, raw: bytes, parameter: str) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise faults.invalid(path, "is damaged: its header is not JSON; download or copy it again.", parameter)
    header.pop("__metadata__", None)
    return header


def _entries(path: Path, header: dict[str, Any], data: int, stamp: Stamp, parameter: str) -> dict[str, Entry]:
    """The table that `header` describes; `data` is the offset of the first tensor byte in the file."""
    table: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, item in header.items():
        try:
            type_name, shape = item["dtype"], tuple(item["shape"])
            begin, end = item["data_offsets"]
            sound = (
                isinstance(type_name, str)
                and len(shape) <= 8
                and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            )
        except (KeyError, TypeError, ValueError):
            sound = False
        dtype = DTYPES.get(type_name) if sound else None
        if not sound or end < begin or (dtype is not None and end - begin != math.prod(shape) * dtype.itemsize):
            raise faults.invalid(
                path,
                f'is damaged: its header gives the tensor "{_short(name)}" no possible type, shape or '
                "place; download or copy it again.",
                parameter,
            )
        spans.append((begin, end, name))
        table[name] = Entry(type_name, dtype, shape, partial(_view, path, stamp, parameter, dtype, shape, data + begin))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise faults.invalid(
                path,
                f'is damaged: the tensors "{_short(first)}" and "{_short(second)}" overlap; download or copy it again.',
                parameter,
            )
    short = data + max((end for _, end, _ in spans), default=0) - stamp.size
    if short > 0:
        raise faults.invalid(
            path,
            f"is cut short: {short:,} of {stamp.size + short:,} bytes are missing; download or copy it again.",
            parameter,
        )
    return table


def _short(name: str) -> str:
    return name if len(name) <= 100 else name[:97] + "..."


# A private writable mapping: a tensor may be written to without harm to the file. Linux reserves memory for all of it
# unless told not to, and so refuses files larger than the memory; Python has the flag's name since 3.13 only.
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000), "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    if sys.platform == "linux"
    else {"access": mmap.ACCESS_COPY}
)

# One mapping a file, alive while any tensor made from it is.
_mappings: WeakValueDictionary[tuple[Path, Stamp], mmap.mmap] = WeakValueDictionary()


def _mapping(path: Path, stamp: Stamp, parameter: str) -> mmap.mmap:
    mapping = _mappings.get((path, stamp))
    if mapping is None:
        try:
            with path.open("rb") as file:
                found = Stamp.of(os.fstat(file.fileno()))
                # Some network file systems number a file anew each time that it is opened.
                if found._replace(node=stamp.node) != stamp:
                    raise faults.invalid(path, "has changed since it was chosen; choose it again.", parameter)
                mapping = mmap.mmap(file.fileno(), 0, **_PRIVATE)
        except FileNotFoundError:
            raise faults.missing(path, parameter) from None
        except (OSError, ValueError) as error:
            raise faults.invalid(path, f"cannot be read: {error}.", parameter) from None
        _mappings[path, stamp] = mapping
    return mapping


def _view(
    path: Path, stamp: Stamp, parameter: str, dtype: torch.dtype, shape: tuple[int, ...], offset: int
) -> torch.Tensor:
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(_mapping(path, stamp, parameter), dtype=dtype, count=count, offset=offset).view(shape)
