"""Tensors from torch's pickle files (.ckpt, .pt, .bin) without running anything that is in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from . import faults

_CONVERT = "use the model's .safetensors file instead."


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins with `start` is a torch zip archive or a bare pickle, whatever its name says.

    The length that a safetensors file begins with can look like either; its header's brace at the ninth byte cannot.
    """
    if start[8:9] == b"{":
        return False
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def read_pickle(path: Path, parameter: str) -> dict[str, torch.Tensor]:
    """The tensors of a torch file by name, memory-mapped.

    Those in a named part of it, a dict in the dict, have its name and a dot before their own, as the safetensors form
    of such files has them.

    Only `weights_only` loading is used, which refuses every object but tensors and plain containers before it is
    made.
    Raises RequestError where the file holds anything else, is damaged, or is of torch's format before 1.6, which
    cannot be mapped.
    """
    if not zipfile.is_zipfile(path):
        raise faults.unsupported(
            path, f"is a pickle in an old or damaged form that cannot be read safely; {_CONVERT}", parameter
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise faults.unsupported(
            path,
            f"is a pickle with more in it than tensors, and was refused before anything in it ran; {_CONVERT}",
            parameter,
        ) from None
    except Exception:
        # A damaged archive fails in as many ways as it has parts; none of them says more to a user than this.
        raise faults.invalid(path, f"is a damaged pickle; download it again, or {_CONVERT}", parameter) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise faults.unsupported(path, f"is a pickle without named tensors; {_CONVERT}", parameter)
    parts = {f"{name}.": part for name, part in content.items() if isinstance(name, str) and isinstance(part, dict)}
    return {
        prefix + name: value.detach()
        for prefix, part in {"": content, **parts}.items()
        for name, value in part.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
    }
