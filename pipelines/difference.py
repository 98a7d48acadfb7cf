"""How far two pictures are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import RequestError
from .inputs import opaque

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Difference:
    """`psnr` is 10 log10(1 / mean squared error) in dB, infinite for equal pictures; `mean` and `largest` are absolute
    differences, from 0 to 1.
    """

    psnr: float
    mean: float
    largest: float


def differences(a: torch.Tensor, b: torch.Tensor) -> list[Difference]:
    """Of each picture of batch `a` [B, H, W, C] to that of `b` at the same place, as far as both batches go. Raises
    RequestError where the pictures are not of one size.
    """
    sizes = [f"{pictures.shape[2]} x {pictures.shape[1]}" for pictures in (a, b)]
    if sizes[0] != sizes[1]:
        told = f"imagesB are {sizes[1]} pixels and imagesA are {sizes[0]}: only pictures of one size can be compared."
        raise RequestError("incompatibleImages", told, "imagesB")
    return [_difference(one, other) for one, other in zip(a, b, strict=False)]


def _difference(a: torch.Tensor, b: torch.Tensor) -> Difference:
    apart = (opaque(a).double().cpu() - opaque(b).double().cpu()).abs()
    squared = float(apart.square().mean())
    return Difference(
        psnr=10 * math.log10(1 / squared) if squared else math.inf,
        mean=float(apart.mean()),
        largest=float(apart.max()),
    )
