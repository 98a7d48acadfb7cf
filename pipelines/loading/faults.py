"""The words for a model file that cannot be used: one sentence each, naming the file and the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError

# File names that every diffusers folder has; alone they tell a reader nothing.
_GENERIC = ("model", "diffusion_pytorch_model", "pytorch_model")


def label(path: Path) -> str:
    """The file's name as a user knows it, with its folders where the name itself says nothing."""
    return "/".join(path.parts[-3:]) if path.name.startswith(_GENERIC) else path.name


def missing(path: Path, parameter: str) -> RequestError:
    """There is nothing at `path`."""
    return _fault("missing", path, f"is not there: no file or folder at {path}.", parameter)


def invalid(path: Path, reason: str, parameter: str) -> RequestError:
    """The file is broken. `reason` is a predicate: 'is empty; download it again.'"""
    return _fault("invalid", path, reason, parameter)


def unsupported(path: Path, reason: str, parameter: str) -> RequestError:
    """The file is whole, but of a kind that this pack does not run."""
    return _fault("unsupported", path, reason, parameter)


def incompatible(path: Path, reason: str, parameter: str) -> RequestError:
    """The file is whole and of the right kind, but does not go with the other files."""
    return _fault("incompatible", path, reason, parameter)


def _fault(prefix: str, path: Path, reason: str, parameter: str) -> RequestError:
    subject = parameter.rstrip("0123456789") or "model"
    return RequestError(f"{prefix}{subject[0].upper()}{subject[1:]}", f'"{label(path)}" {reason}', parameter)


@contextmanager
def within(path: str) -> Iterator[None]:
    """Faults of files that are found in this context are told of the object at `path`, such as `controlNet[1]`."""
    try:
        yield
    except RequestError as error:
        raise RequestError.of(replace(fault, parameter=f"{path}.{fault.parameter}") for fault in error.faults) from None
