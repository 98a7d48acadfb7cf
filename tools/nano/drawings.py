"""What the add-ons are taught from, drawn from scenes: striped subjects and drawings of their outlines."""

from __future__ import annotations

import torch
from torch import Tensor

from .world import Scene, cover, distance, draw_mask, draw_scene, face_features, local

# In radii. The world's plan says 0.25, but at 128 px that is 4.5 to 6.7 px, which the autoencoder (8 px a cell) turns
# into a plain surface. At 0.5 it gives three quarters of a stripe's depth back, at 0.6 nearly all of it.
STRIPE_PERIOD = 0.6
OUTLINE = 2.0


def draw_striped(scene: Scene, height: int = 128, width: int = 128) -> Tensor:
    """The scene [3, height, width] in [0, 1] with horizontal stripes of half the brightness on its subject.

    A face's eyes and mouth stay as they are. The stripe at the centre is a bright one.
    """
    picture = draw_scene(scene, height, width)
    u, v, pixels = local(scene, height, width)
    from_dark = (torch.remainder(v / STRIPE_PERIOD, 1.0) - 0.5).abs() * STRIPE_PERIOD
    dark = cover(from_dark - STRIPE_PERIOD / 4, pixels) * draw_mask(scene, height, width)
    if scene.subject == "face":
        for _, signed in face_features(u, v):
            dark = dark * (1 - cover(signed, pixels))
    return picture * (1 - 0.5 * dark)


def draw_edges(scene: Scene, height: int = 128, width: int = 128) -> Tensor:
    """The subject's outline, 2 px wide and white on black, [3, height, width] in [0, 1].

    A ring has two; a face is its disc alone.
    """
    u, v, pixels = local(scene, height, width)
    return cover(distance(scene.subject, u, v).abs() - OUTLINE / 2 / pixels, pixels).expand(3, height, width)
