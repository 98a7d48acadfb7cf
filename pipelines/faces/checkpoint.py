"""A detector out of ultralytics' .pt file, which is a pickle of live objects, without running anything in it.

torch's `weights_only` unpickler makes nothing but what it is given names for. Here these names stand for empty objects:
a network's layers get the values that the file has for them, but no constructor is called (one of ultralytics' fetches
weights), and all that is no layer becomes an object that does nothing. This is not left to ultralytics' own safe
loading, because older versions have a weaker one, it downloads a file for some names (`yolov5n.pt`), and whatever a
file named stays allowed in the process afterwards.
"""

from __future__ import annotations

import importlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RequestError
from ..loading import faults
from ..loading.pickles import is_pickle

PARAMETER = "detector"
_ANOTHER = "choose another detector, such as face_yolov8n.pt."

# Where the classes of layers and networks live.
_LAYERS = ("torch.nn.modules", "ultralytics.nn.modules", "ultralytics.nn.tasks")
# Parts of a training that such files keep beside the network: losses, options, folders, scores.
_KEPT_BESIDE = ("ultralytics.", "pathlib.", "numpy.core.multiarray.", "numpy._core.multiarray.")


class Inert:
    """What stands for an object that a detector does not need; it takes any values and does nothing."""

    def __new__(cls, *_: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object):
        pass


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What the file holds: "model" or "ema", a network, and beside it plain values or `Inert` objects.

    Raises RequestError where the file is not there, is damaged, is no such file, or holds anything else than a network
    and what a training leaves beside it.
    """
    content = io.BytesIO(_read(path))
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        told = f"Reading a detector safely needs PyTorch 2.6 or later, and this is {torch.__version__}: update it."
        raise RequestError("unsupportedDetector", told, PARAMETER)
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(content)
    except Exception:
        raise faults.invalid(path, f"is damaged, or is no ultralytics model; {_ANOTHER}", PARAMETER) from None
    stand_ins = {name: _stand_ins(name) for name in named}
    foreign = sorted(name for name, pairs in stand_ins.items() if not pairs)
    if foreign:
        shown = ", ".join(foreign[:3])[:120]
        raise faults.unsupported(
            path,
            f"holds more than an ultralytics model ({shown}), and was refused before anything in it ran; {_ANOTHER}",
            PARAMETER,
        )
    content.seek(0)
    try:
        with torch.serialization.safe_globals([pair for pairs in stand_ins.values() for pair in pairs]):
            loaded = torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        told = f"has more in it than a network's values, and was refused before any of it ran; {_ANOTHER}"
        raise faults.unsupported(path, told, PARAMETER) from None
    except Exception:
        # A damaged archive fails in as many ways as it has parts.
        raise faults.invalid(path, f"is damaged, or is no ultralytics model; {_ANOTHER}", PARAMETER) from None
    if not isinstance(loaded, dict):
        raise faults.unsupported(path, f"is no ultralytics model; {_ANOTHER}", PARAMETER)
    return loaded


def _read(path: Path) -> bytes:
    """All of the file, once: what is looked at is what is loaded."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise faults.missing(path, PARAMETER) from None
    except OSError as error:
        raise faults.invalid(path, f"cannot be read: {error.strerror or error}.", PARAMETER) from None
    if not content:
        raise faults.invalid(path, "is empty (0 bytes); download or copy it again.", PARAMETER)
    if zipfile.is_zipfile(io.BytesIO(content)):
        return content
    if is_pickle(content[:16]):
        raise faults.unsupported(path, f"is a pickle that cannot be read safely, and was not; {_ANOTHER}", PARAMETER)
    raise faults.invalid(path, f"is no ultralytics model, which is a .pt archive; {_ANOTHER}", PARAMETER)


def _stand_ins(name: str) -> list[tuple[Any, str]]:
    """What the unpickler is to take for a name in the file, with what else it must know for that; nothing for a name
    that has no place in a detector.
    """
    if name == "builtins.getattr":
        return [(_forward_of, name)]
    kind = _layer(name)
    if kind is not None:
        # The class itself must be known so that values can be put into its objects. No file can name a line break.
        return [(_maker(kind), name), (kind, f"\n{name}")]
    if name.startswith(_KEPT_BESIDE) or name == "numpy.dtype":
        return [(Inert, name)]
    return []


def _layer(name: str) -> type[nn.Module] | None:
    module, _, attribute = name.rpartition(".")
    if not any(module == home or module.startswith(home + ".") for home in _LAYERS):
        return None
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, nn.Module) else None


def _maker(kind: type[nn.Module]) -> type:
    """What makes an empty object of `kind`, so that a file cannot have it constructed."""

    def make(cls: type, *given: object) -> nn.Module:
        if given:
            raise pickle.UnpicklingError(f"{kind.__name__} is constructed")
        return kind.__new__(kind)

    return type(kind.__name__, (), {"__new__": make})


def _forward_of(owner: object, name: str) -> Any:
    """The one attribute that such files ask for: which of its own ways a layer computes."""
    if isinstance(owner, nn.Module) and name in ("forward", "forward_fuse"):
        return getattr(type(owner), name).__get__(owner)
    raise pickle.UnpicklingError(f"getattr of {name!r}")
