"""Which part of a picture is painted for a face, and how it goes back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..canvas import Box, Canvas, blurred, resized
from .detector import Found

if TYPE_CHECKING:
    import torch

SAME_FACE = 0.5
"""Share of the smaller of two boxes, covered by the other, above which both are one face."""


@dataclass(frozen=True)
class FaceArea:
    """`canvas` is what is painted around a face; `mask` [height, width] is how much of it shows, from 0 to 1."""

    canvas: Canvas
    mask: torch.Tensor

    @classmethod
    def of(cls, box: Box, width: int, height: int, *, padding: int, blur: int, area: int, max_side: int) -> FaceArea:
        """The area of the face in `box` of a picture of width x height.

        The box grows by `padding` and its edge is softened over `blur` pixels to both sides. Around it as much again
        is painted along, half a box on every side, so that the model sees whose face it is; all of that at about
        `area` pixels, with no side above `max_side`.
        """
        import torch

        padded = box.grown(padding, width, height)
        mask = torch.zeros(height, width)
        mask[padded.top : padded.bottom, padded.left : padded.right] = 1
        across, down = (max(math.ceil(side / 2), blur) for side in (padded.width, padded.height))
        around = Box(
            max(0, padded.left - across),
            max(0, padded.top - down),
            min(width, padded.right + across),
            min(height, padded.bottom + down),
        )
        return cls(Canvas.part(width, height, around, area, max_side), blurred(mask, blur))

    @property
    def changing(self) -> torch.Tensor:
        """Where anything may show, [height, width], 0 or 1: what is half seen must be wholly painted, for it is mixed
        with the old picture only once, in pixels.
        """
        return (self.mask > 0).to(self.mask.dtype)

    def put(self, picture: torch.Tensor, painted: torch.Tensor) -> torch.Tensor:
        """`picture` [height, width, 3] mixed with what was painted on the canvas, as the mask says.

        Where the mask is 0 the pixels are the very same.
        """
        import torch

        left, top, right, bottom = box = self.canvas.box
        share = self.mask[top:bottom, left:right, None]
        old = picture[top:bottom, left:right]
        new = resized(painted, box.width, box.height)
        result = picture.clone()
        result[top:bottom, left:right] = torch.where(share > 0, torch.lerp(old, new, share), old)
        return result


def apart(found: Iterable[Found]) -> list[Found]:
    """Faces, the surest first, without those that are mostly the same as a surer one."""
    kept: list[Found] = []
    for face in sorted(found, key=lambda face: (-face.confidence, face.box)):
        if face.box.width > 0 and face.box.height > 0 and not any(_same(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _same(first: Box, second: Box) -> bool:
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    smaller = min(first.width * first.height, second.width * second.height)
    return width > 0 and height > 0 and width * height > SAME_FACE * smaller
