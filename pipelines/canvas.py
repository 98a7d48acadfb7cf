"""Which part of a picture is painted, at what size, and how it goes back. Pictures are [height, width, channels]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .latents import PIXELS
from .request import SIZE_MULTIPLE

if TYPE_CHECKING:
    import torch

SMALLEST_SIDE = 64
"""Pixels a side that are painted at least."""

FEATHER = 8
"""Pixels, at most, over which a part that was painted at another scale fades in from the rim of its mask."""


class Box(NamedTuple):
    """Pixels from `left` and `top`, up to but without `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def grown(self, by: int, width: int, height: int) -> Box:
        """With `by` pixels more on every side, within a picture of width x height."""
        return Box(
            max(0, self.left - by),
            max(0, self.top - by),
            min(width, self.right + by),
            min(height, self.bottom + by),
        )


@dataclass(frozen=True)
class Canvas:
    """A picture of width x height pixels, of which `box` is painted, at painted_width x painted_height pixels."""

    width: int
    height: int
    box: Box
    painted_width: int
    painted_height: int

    @classmethod
    def whole(cls, width: int, height: int) -> Canvas:
        """All of the picture, at its own size."""
        return cls(width, height, Box(0, 0, width, height), width, height)

    @classmethod
    def part(cls, width: int, height: int, box: Box, area: int, max_side: int) -> Canvas:
        """`box` of the picture, enlarged to about `area` pixels, but to no side above `max_side`; never shrunk."""
        scale = min(math.sqrt(area / (box.width * box.height)), max_side / max(box.width, box.height))
        if scale <= 1:
            left, right = _aligned(box.left, box.right, width)
            top, bottom = _aligned(box.top, box.bottom, height)
            box = Box(left, top, right, bottom)
            return cls(width, height, box, box.width, box.height)
        sides = (_multiple(box.width * scale, max_side), _multiple(box.height * scale, max_side))
        return cls(width, height, box, *sides)

    @property
    def is_whole(self) -> bool:
        return self == Canvas.whole(self.width, self.height)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """[painted height / 8, painted width / 8]."""
        return self.painted_height // PIXELS, self.painted_width // PIXELS

    def take(self, picture: torch.Tensor) -> torch.Tensor:
        """What is to be painted of a picture [height, width, C]: [painted height, painted width, C]."""
        left, top, right, bottom = self.box
        return resized(picture[top:bottom, left:right], self.painted_width, self.painted_height)

    def put(self, picture: torch.Tensor, painted: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`picture` [height, width, 3] with what was painted where `mask` [height, width] is above 0.

        All other pixels are the very same. Painted at another scale, it fades in from the mask's rim inwards.
        """
        import torch

        left, top, right, bottom = self.box
        inside = mask[top:bottom, left:right]
        back = resized(painted, self.box.width, self.box.height)
        same_scale = back.shape == painted.shape
        share = (inside > 0).to(back.dtype) if same_scale else faded(inside)
        old = picture[top:bottom, left:right]
        result = picture.clone()
        result[top:bottom, left:right] = torch.where(share[..., None] > 0, torch.lerp(old, back, share[..., None]), old)
        return result


def box_of(mask: torch.Tensor) -> Box | None:
    """The smallest box around all of `mask` [height, width] that is above 0; None where nothing is."""
    rows, columns = (mask > 0).any(1).nonzero(), (mask > 0).any(0).nonzero()
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def fitted(picture: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The picture [H, W, C] as [height, width, C]: scaled until it covers that, what is over cut off on both sides."""
    rows, columns = picture.shape[:2]
    if (rows, columns) == (height, width):
        return picture
    if columns * height > width * rows:
        kept = max(1, round(rows * width / height))
        left = (columns - kept) // 2
        picture = picture[:, left : left + kept]
    else:
        kept = max(1, round(columns * height / width))
        top = (rows - kept) // 2
        picture = picture[top : top + kept]
    return resized(picture, width, height)


def resized(picture: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The picture [H, W, C] as [height, width, C], from 0 to 1; itself where it has that size."""
    import torch

    if picture.shape[:2] == (height, width):
        return picture
    batch = picture.movedim(-1, 0)[None]
    scaled = torch.nn.functional.interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return scaled[0].movedim(0, -1).clamp(0, 1)


def blurred(mask: torch.Tensor, radius: float) -> torch.Tensor:
    """The mask [H, W] under a Gaussian of standard deviation `radius` / 2 pixels, its rim continued outside."""
    import torch

    reach = math.ceil(radius)
    if reach < 1:
        return mask
    offsets = torch.arange(-reach, reach + 1, dtype=mask.dtype, device=mask.device)
    kernel = torch.exp(-0.5 * (offsets / (radius / 2)) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(mask[None, None], (reach,) * 4, mode="replicate")
    across = torch.nn.functional.conv2d(padded, kernel[None, None, None])
    return torch.nn.functional.conv2d(across, kernel[None, None, :, None])[0, 0].clamp(0, 1)


def faded(mask: torch.Tensor) -> torch.Tensor:
    """How much of a pasted part shows at each pixel: 0 outside of `mask` [H, W] and at its rim, up to 1 inside."""
    box = box_of(mask)
    if box is None:
        return mask
    changed = (mask > 0).to(mask.dtype)
    # A thin mask has no room for a wide seam.
    soft = blurred(changed, min(FEATHER, min(box.width, box.height) / 8))
    return changed * (2 * soft - 1).clamp(0, 1)


def latent_mask(mask: torch.Tensor) -> torch.Tensor:
    """The mask [height, width] for latents, [1, 1, height / 8, width / 8].

    A latent may change as much as the most of its 8 x 8 pixels may: so one is kept exactly where all of them are black.
    """
    import torch

    return torch.nn.functional.max_pool2d(mask[None, None], PIXELS)


def _aligned(start: int, end: int, size: int) -> tuple[int, int]:
    """The range grown to a multiple of 16 within 0 to `size`, itself such a multiple."""
    length = min(size, max(SMALLEST_SIDE, math.ceil((end - start) / SIZE_MULTIPLE) * SIZE_MULTIPLE))
    first = min(max(0, (start + end - length) // 2), size - length)
    return first, first + length


def _multiple(side: float, limit: int) -> int:
    return max(SMALLEST_SIDE, min(round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE, limit))
