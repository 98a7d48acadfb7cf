"""The world that sd3-nano draws: one coloured subject on a coloured background, drawn by anti-aliased signed distances.

Coordinates are in half-canvas units (x and y from -1 to 1, y downwards); shapes are defined in units of the subject's
radius, which is a fraction of half the shorter side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (217, 31, 31),
    "green": (26, 166, 51),
    "blue": (31, 64, 217),
    "yellow": (242, 217, 26),
    "purple": (140, 38, 179),
    "orange": (247, 128, 13),
    "white": (242, 242, 242),
    "black": (13, 13, 13),
}
SUBJECTS = ("circle", "square", "triangle", "ring", "cross", "face")
POSITIONS = {"on the left": -0.4, "in the center": 0.0, "on the right": 0.4}

JITTER_X, JITTER_Y = 0.06, 0.15
RADIUS = (0.28, 0.42)
MAX_GRADIENT = 0.15


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    `gradient`, from -0.15 to 0.15, is by how much the background darkens towards the bottom or, if negative, the top.
    """

    subject: str
    colour: str
    background: str
    position: str
    x: float
    y: float
    radius: float
    gradient: float = 0.0


def sample_scene(rng: np.random.Generator, **fixed: str) -> Scene:
    """A scene drawn at random; `fixed` sets subject, colour, background or position."""
    names = list(PALETTE)
    colour, background = fixed.get("colour"), fixed.get("background")
    if colour is None:
        colour = str(rng.choice([name for name in names if name != background]))
    if background is None:
        background = str(rng.choice([name for name in names if name != colour]))
    position = fixed.get("position") or str(rng.choice(list(POSITIONS)))
    return Scene(
        subject=fixed.get("subject") or str(rng.choice(SUBJECTS)),
        colour=colour,
        background=background,
        position=position,
        x=POSITIONS[position] + float(rng.uniform(-JITTER_X, JITTER_X)),
        y=float(rng.uniform(-JITTER_Y, JITTER_Y)),
        radius=float(rng.uniform(*RADIUS)),
        gradient=float(rng.uniform(-MAX_GRADIENT, MAX_GRADIENT)),
    )


def _box(u: Tensor, v: Tensor, half_width: float, half_height: float) -> Tensor:
    du, dv = u.abs() - half_width, v.abs() - half_height
    return torch.hypot(du.clamp(min=0), dv.clamp(min=0)) + torch.maximum(du, dv).clamp(max=0)


def distance(subject: str, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the subject's outline in units of its radius, negative inside.

    `u` and `v` are right of and below its centre, in the same units.
    """
    if subject in ("circle", "face"):
        return torch.hypot(u, v) - 1.0
    if subject == "square":
        return _box(u, v, 0.85, 0.85)
    if subject == "triangle":
        return torch.maximum(v, 0.75**0.5 * u.abs() - 0.5 * v) - 0.5
    if subject == "ring":
        return (torch.hypot(u, v) - 0.75).abs() - 0.25
    if subject == "cross":
        return torch.minimum(_box(u, v, 1.0, 0.3), _box(u, v, 0.3, 1.0))
    raise ValueError(f"no such subject: {subject}")


def face_features(u: Tensor, v: Tensor) -> list[tuple[str, Tensor]]:
    """Colour name and signed distance of what is painted on a face, bottom layer first."""
    eyes = torch.hypot(u.abs() - 0.38, v + 0.25)
    arc = torch.hypot(u, v - 0.1)
    smile = torch.maximum((arc - 0.5).abs() - 0.07, 0.3 - v)
    return [("white", eyes - 0.17), ("black", eyes - 0.08), ("black", smile)]


def grids(height: int, width: int, window: tuple[int, int, int, int] | None = None) -> tuple[Tensor, Tensor]:
    """x [1, w] and y [h, 1] of the pixel centres, in pixels from the canvas centre.

    `window` (top, left, height, width) takes a part of the canvas.
    """
    top, left, h, w = window or (0, 0, height, width)
    x = torch.arange(left, left + w, dtype=torch.float32) + 0.5 - width / 2
    y = torch.arange(top, top + h, dtype=torch.float32) + 0.5 - height / 2
    return x[None, :], y[:, None]


def local(
    scene: Scene, height: int, width: int, window: tuple[int, int, int, int] | None = None
) -> tuple[Tensor, Tensor, float]:
    """u and v [h, w] of the pixel centres in radii from the subject's centre, and its radius in pixels."""
    x, y = grids(height, width, window)
    pixels = scene.radius * min(height, width) / 2
    u, v = (x - scene.x * width / 2) / pixels, (y - scene.y * height / 2) / pixels
    u, v = torch.broadcast_tensors(u, v)
    return u, v, pixels


def cover(signed: Tensor, pixels: float) -> Tensor:
    """How much of each pixel lies inside, from 0 to 1, by its signed distance in radii of `pixels`."""
    return (0.5 - signed * pixels).clamp(0, 1)


def draw_mask(scene: Scene, height: int = 128, width: int = 128) -> Tensor:
    """The subject's filled silhouette, [height, width] in [0, 1]; a face counts as a full disc."""
    u, v, pixels = local(scene, height, width)
    return cover(distance(scene.subject, u, v), pixels)


def draw_scene(
    scene: Scene, height: int = 128, width: int = 128, window: tuple[int, int, int, int] | None = None
) -> Tensor:
    """One picture [3, height, width] in [0, 1], or the `window` (top, left, height, width) of it."""
    u, v, pixels = local(scene, height, width, window)
    _, y = grids(height, width, window)
    paint = {name: torch.tensor(rgb, dtype=torch.float32)[:, None, None] / 255 for name, rgb in PALETTE.items()}
    down = y / height + 0.5
    shade = 1 - abs(scene.gradient) * (down if scene.gradient > 0 else 1 - down)
    picture = (paint[scene.background] * shade).expand(3, *u.shape)
    layers = [(scene.colour, distance(scene.subject, u, v))]
    if scene.subject == "face":
        layers += face_features(u, v)
    for colour, signed in layers:
        picture = torch.lerp(picture, paint[colour].expand_as(picture), cover(signed, pixels).expand_as(picture))
    return picture


def draw(scenes: Sequence[Scene], height: int = 128, width: int = 128) -> Tensor:
    """Pictures [B, 3, height, width] in [-1, 1]."""
    return torch.stack([draw_scene(scene, height, width) for scene in scenes]) * 2 - 1
