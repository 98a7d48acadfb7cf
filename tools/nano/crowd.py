"""Canvases with several subjects, some of them faces, and where the faces are: what the face detector learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .world import (
    MAX_GRADIENT,
    PALETTE,
    SUBJECTS,
    Scene,
    cover,
    distance,
    draw_scene,
    face_features,
    local,
    sample_scene,
)

# Of half the canvas's shorter side, and in pixels, below which eyes and a mouth cannot be told.
RADIUS, LEAST_PIXELS = (0.12, 0.45), 8.0
MOST_FACES, MOST_OTHERS = 3, 3
OTHERS = tuple(name for name in SUBJECTS if name != "face")


def crowd(rng: np.random.Generator, height: int, width: int, faces: int, others: int) -> list[Scene]:
    """Up to so many faces, and so many other subjects, on one background; none touches another or the canvas's edge."""
    background, gradient = str(rng.choice(list(PALETTE))), float(rng.uniform(-MAX_GRADIENT, MAX_GRADIENT))
    half = min(height, width) / 2
    placed: list[Scene] = []
    for subject in ["face"] * faces + [str(rng.choice(OTHERS)) for _ in range(others)]:
        for _ in range(12):
            scene = sample_scene(rng, subject=subject, background=background)
            radius = max(LEAST_PIXELS / half, float(rng.uniform(*RADIUS)) / (1.4 if faces + others > 2 else 1))
            reach = 1 - radius * half / (np.array([width, height]) / 2)
            x, y = rng.uniform(-reach, reach)
            scene = Scene(subject, scene.colour, background, "", float(x), float(y), radius, gradient)
            if all(_apart(scene, other, height, width) for other in placed):
                placed.append(scene)
                break
    return placed


def _apart(one: Scene, other: Scene, height: int, width: int) -> bool:
    distance_px = np.hypot((one.x - other.x) * width / 2, (one.y - other.y) * height / 2)
    # A square and a triangle reach 1.2 and 1 radii from their centres.
    return bool(distance_px > 1.25 * (one.radius + other.radius) * min(height, width) / 2)


def draw_crowd(scenes: Sequence[Scene], height: int, width: int) -> Tensor:
    """The picture [3, height, width] in [0, 1] of scenes of one background."""
    picture = draw_scene(scenes[0], height, width)
    for scene in scenes[1:]:
        u, v, pixels = local(scene, height, width)
        layers = [(scene.colour, distance(scene.subject, u, v))]
        if scene.subject == "face":
            layers += face_features(u, v)
        for colour, signed in layers:
            paint = torch.tensor(PALETTE[colour], dtype=torch.float32)[:, None, None] / 255
            picture = torch.lerp(picture, paint.expand_as(picture), cover(signed, pixels).expand_as(picture))
    return picture


def face_boxes(scenes: Sequence[Scene], height: int, width: int) -> Tensor:
    """Left, top, right and bottom of the faces, [N, 4] in pixels."""
    half = min(height, width) / 2
    boxes = [
        (x - r, y - r, x + r, y + r)
        for x, y, r in (
            ((s.x + 1) * width / 2, (s.y + 1) * height / 2, s.radius * half) for s in scenes if s.subject == "face"
        )
    ]
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
