"""Writes a safetensors file in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def store(tensors: Mapping[str, Tensor], target: Path) -> int:
    """Writes `target` in one move and returns its size in bytes.

    Raises ValueError where a weight does not fit in half precision.
    """
    from safetensors.torch import save_file

    state = {key: tensor.detach().cpu().half().contiguous() for key, tensor in tensors.items()}
    bad = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"not finite in half precision: {bad}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    save_file(state, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(target)
    return target.stat().st_size
