"""Has the add-ons draw what their plan asks for, and says how often they do. Seeds are of no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from tests.judge import JUDGE_SEED, judge

from . import edges, reference, stripes
from .base import Base, paint
from .captions import Said, fill, full_caption
from .drawings import STRIPE_PERIOD, draw_edges, draw_striped
from .measure import sheet
from .world import Scene, draw, draw_mask, sample_scene

WEIGHTS = (-1.0, 0.0, 0.5, 0.75, 1.0)
STRIPED = 0.15
"""Strength from which a picture counts as striped; drawings at depth 1 have 0.35 or more, plain ones 0."""
HEIGHTS = {"circle": 2.0, "square": 1.7, "triangle": 1.5, "ring": 2.0, "cross": 2.0, "face": 2.0}
"""Of the subjects, in radii."""
UNPLACED = "{a} {colour} {subject}, {background} background"


def subject_mask(picture: Tensor) -> Tensor:
    """Where a picture [3, h, w] in [0, 1] shows its subject, features of a face included: bool [h, w].

    That is what differs from its row's background by more than half of the subject's own difference.
    """
    rim = max(2, picture.shape[2] // 32)
    rows = torch.cat([picture[:, :, :rim], picture[:, :, -rim:]], dim=2).median(dim=2, keepdim=True).values
    difference = (picture - rows).norm(dim=0)
    inside = difference > 40 / 255
    return difference > max(difference[inside].median().item() / 2, 40 / 255) if inside.any() else inside


def stripe_strength(picture: Tensor, subject: str) -> float:
    """How strongly the brightness of the subject's rows swings at the period of the stripes, relative to its mean.

    `picture` is [3, h, w] in [0, 1]. Rows count by their median, so that a face's eyes are no stripes, and only what
    lies 2 px and more inside the subject, so that its edge is none.
    """
    mask = subject_mask(picture).float()[None]
    # A dark stripe on a dark background may be missing from the mask: small gaps are closed first.
    filled = -max_pool2d(-max_pool2d(mask, 7, 1, 3), 7, 1, 3)
    inside = -max_pool2d(-filled, 5, 1, 2)[0] > 0
    radius = float(filled[0].any(1).sum()) / HEIGHTS[subject]
    rows = inside.sum(1) >= 3
    if rows.sum() < STRIPE_PERIOD * radius:
        return 0.0
    brightness = torch.stack(
        [row[where].median() for row, where in zip(picture.mean(0)[rows], inside[rows], strict=True)]
    )
    y = torch.arange(len(rows))[rows] / radius
    swing = brightness - brightness.mean()
    phases = 2 * torch.pi / STRIPE_PERIOD * torch.linspace(0.8, 1.25, 10)[:, None] * y
    amplitude = 2 * torch.hypot((swing * phases.cos()).mean(1), (swing * phases.sin()).mean(1)).max()
    return float(amplitude / brightness.mean())


def _scenes(count: int, seed: int, **fixed: str) -> list[Scene]:
    rng = np.random.default_rng([JUDGE_SEED, 100 + seed])
    return [sample_scene(rng, **fixed) for _ in range(count)]


def measure_stripes(base: Base, file: Path, work: Path, count: int, guidance: float) -> dict[float, float]:
    """Share of striped pictures by weight; leaves `striped.png`, a row a weight. Black subjects cannot show stripes."""
    scenes = [s for s in _scenes(2 * count, 0) if s.colour != "black"][:count]
    lora = stripes.Lora.load(base.transformer, file)
    captions = [full_caption(scene) for scene in scenes]
    shares, shown = {}, []
    for weight in WEIGHTS:
        lora.set_weight(weight)
        pictures = paint(base, captions, guidance=guidance)
        strengths = np.array([stripe_strength((p + 1) / 2, s.subject) for p, s in zip(pictures, scenes, strict=True)])
        verdicts = [judge((p + 1) / 2, c) for p, c in zip(pictures, captions, strict=True)]
        shares[weight] = float((strengths > STRIPED).mean())
        colours = np.mean([v.colour and v.background for v in verdicts])
        strength, striped = strengths.mean(), shares[weight]
        print(f"stripes at {weight}: strength {strength:.3f}, striped {striped:.2f}, colours {colours:.2f}", flush=True)
        shown.append(pictures[:12])
    drawn = torch.stack([draw_striped(s) for s in scenes[:12]]) * 2 - 1
    sheet(torch.cat([*shown, drawn]), 12).save(work / "striped.png")
    return shares


def measure_edges(base: Base, file: Path, work: Path, count: int, guidance: float) -> float:
    """Share of pictures whose subject and its filled outline have an IoU of 0.7 or more; leaves `edged.png`."""
    scenes = _scenes(count, 1)
    net = edges.load_net(base, file)
    hints = torch.stack([draw_edges(scene) for scene in scenes])
    captions = [fill(UNPLACED, scene) for scene in scenes]
    pictures = paint(base, captions, edges.controlled(base, net, hints), guidance)
    ious = np.array(
        [_iou(subject_mask((p + 1) / 2), draw_mask(s) > 0.5) for p, s in zip(pictures, scenes, strict=True)]
    )
    verdicts = [judge((p + 1) / 2, c) for p, c in zip(pictures, captions, strict=True)]
    right, share = np.mean([v.right for v in verdicts]), float((ious >= 0.7).mean())
    for subject in HEIGHTS:
        of = np.array([scene.subject == subject for scene in scenes])
        print(f"  {subject}: IoU {ious[of].mean():.2f}, {(ious[of] >= 0.7).sum()} of {of.sum()}")
    print(
        f"edges: IoU {ious.mean():.3f}, at least 0.7 in {share:.2f}; what was named is right in {right:.2f}", flush=True
    )
    worst = np.argsort(ious)[:32]
    sheet(torch.stack([part[n] for n in worst for part in (hints * 2 - 1, pictures)]), 8).save(work / "edged.png")
    return share


def _iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def measure_reference(
    base: Base, vision: Path, file: Path, work: Path, count: int, guidance: float
) -> dict[float, float]:
    """Share of pictures, by weight, in both colours of the guide, for the caption `a picture`; leaves `guided.png`."""
    scenes = _scenes(count, 2)
    guides = draw(scenes)
    adapter = reference.load_adapter(base, file)
    shares, shown = {}, [guides[:12]]
    for weight in (0.0, 0.5, 1.0):
        pictures = paint(base, ["a picture"] * count, reference.guided(adapter, guides, vision, weight), guidance)
        verdicts = [
            judge((p + 1) / 2, Said(colour=s.colour, background=s.background))
            for p, s in zip(pictures, scenes, strict=True)
        ]
        shares[weight] = float(np.mean([v.right for v in verdicts]))
        colour, background = (np.mean([getattr(v, name) for v in verdicts]) for name in ("colour", "background"))
        print(f"reference at {weight}: colour {colour:.2f}, background {background:.2f}, both {shares[weight]:.2f}")
        shown.append(pictures[:12])
    sheet(torch.cat(shown), 12).save(work / "guided.png")
    return shares
