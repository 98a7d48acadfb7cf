"""What a detector found, drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .detector import Found

if TYPE_CHECKING:
    import torch

COLOUR = (255, 0, 255)


def with_boxes(picture: torch.Tensor, faces: Iterable[Found]) -> torch.Tensor:
    """The picture [height, width, 3] from 0 to 1 with the faces' boxes and confidences drawn into it."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw

    page = Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
    draw = ImageDraw.Draw(page)
    thickness = max(1, round(max(page.size) / 400))
    for face in faces:
        left, top, right, bottom = face.box
        # Pillow draws the last pixel too.
        draw.rectangle((left, top, right - 1, bottom - 1), outline=COLOUR, width=thickness)
        draw.text((left + thickness + 1, top + thickness), f"{face.confidence:.2f}", fill=COLOUR)
    return torch.from_numpy(np.asarray(page, dtype=np.float32) / 255)
