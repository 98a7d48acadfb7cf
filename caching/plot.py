"""The decisions of a run over its steps, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .trace import Row, Trace

if TYPE_CHECKING:
    import torch
    from PIL.ImageDraw import ImageDraw

HEIGHT, MARGIN, BAND = 160, 12, 24
BACKGROUND, TEXT, RULE = (24, 24, 27), (212, 212, 216), (82, 82, 91)
COMPUTED, REUSED, LINE = (244, 114, 74), (74, 168, 244), (250, 204, 21)
LOWEST = 1e-3
"""Errors are drawn on a logarithmic scale, from this share of the limit up to ten times the limit."""


def plot(trace: Trace) -> torch.Tensor:
    """[height, width, 3], from 0 to 1: a column a step, orange where it was computed and blue where it was reused; over
    it the error that decided, as a dot, and its limit as a line.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageDraw

    rows = trace.steps
    column = max(4, min(20, 640 // max(len(rows), 1)))
    picture = Image.new("RGB", (2 * MARGIN + column * max(len(rows), 16), HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    computed, reused = trace.count("computed"), trace.count("reused")
    draw.text((MARGIN, MARGIN // 2), f"{computed} computed, {reused} reused", fill=TEXT)
    top, bottom = MARGIN + 16, HEIGHT - MARGIN - BAND
    if any(row.total is not None for row in rows):
        level = _level(1.0, top, bottom)
        draw.line((MARGIN, level, MARGIN + column * len(rows), level), fill=LINE)
    draw.line((MARGIN, bottom, MARGIN + column * len(rows), bottom), fill=RULE)
    for index, row in enumerate(rows):
        _draw_step(draw, row, MARGIN + index * column, column, top, bottom)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def plots(traces: Sequence[Trace]) -> torch.Tensor:
    """The plots of several runs, one below the other, as one picture [height, width, 3]."""
    import torch

    drawn = [plot(trace) for trace in traces]
    width = max(picture.shape[1] for picture in drawn)
    background = torch.tensor(BACKGROUND, dtype=torch.float32) / 255
    for index, picture in enumerate(drawn):
        beside = background.expand(HEIGHT, width - picture.shape[1], 3)
        drawn[index] = torch.cat([picture, beside], dim=1)
    return torch.cat(drawn)


def _draw_step(draw: ImageDraw, row: Row, left: int, column: int, top: int, bottom: int) -> None:
    colour = COMPUTED if row.action == "computed" else REUSED
    draw.rectangle((left, bottom + 4, left + column - 2, bottom + BAND), fill=colour)
    if row.total is not None and math.isfinite(row.total) and row.limit > 0:
        level = _level(row.total / row.limit, top, bottom)
        centre = left + column // 2 - 1
        draw.ellipse((centre - 2, level - 2, centre + 2, level + 2), fill=colour)


def _level(share: float, top: int, bottom: int) -> float:
    """Where a share of the limit is drawn."""
    clamped = min(max(share, LOWEST), 10.0)
    return bottom - (bottom - top) * math.log(clamped / LOWEST) / math.log(10.0 / LOWEST)
