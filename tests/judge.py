"""Says whether a picture of sd3-nano's world is right: its subject, its two colours and its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from tools.nano.captions import Said, every_caption, full_caption
from tools.nano.world import PALETTE, POSITIONS, SUBJECTS, Scene, distance, face_features, grids, sample_scene

# Training draws its scenes from seeds that begin with 0 to 2.
JUDGE_SEED = 7
PLACE_TOLERANCE = 0.2
_COLOURS = torch.tensor(list(PALETTE.values()), dtype=torch.float32)


@dataclass(frozen=True)
class Verdict:
    """Which of the four attributes are as asked, True where the prompt leaves one free.

    `seen` is what the picture shows, `iou` how well the template of its subject fits.
    """

    subject: bool
    colour: bool
    background: bool
    position: bool
    seen: Said
    iou: float

    @property
    def right(self) -> bool:
        """All four are as asked."""
        return self.subject and self.colour and self.background and self.position


def prompts(count: int, seed: int = 0) -> Iterator[str]:
    """Full-form captions of random scenes, from seeds that training never uses."""
    rng = np.random.default_rng([JUDGE_SEED, seed])
    for _ in range(count):
        yield full_caption(sample_scene(rng))


@cache
def _meaning() -> dict[str, Said]:
    return every_caption()


def judge(image: object, asked: str | Scene | Said) -> Verdict:
    """Judges `image` against a caption or a scene.

    `image` is a PIL picture, a uint8 array [H, W, 3] or a float tensor [3, H, W] in [0, 1].

    Raises KeyError for a caption of no known form.
    """
    wanted = _meaning()[asked] if isinstance(asked, str) else asked
    seen, iou, x = look(_pixels(image))
    place = wanted.position is None or (
        seen.subject is not None and abs(x - POSITIONS[wanted.position]) <= PLACE_TOLERANCE
    )
    same = {n: getattr(wanted, n) in (None, getattr(seen, n)) for n in ("subject", "colour", "background")}
    return Verdict(**same, position=place, seen=seen, iou=iou)


def _pixels(image: object) -> Tensor:
    """[H, W, 3], 0 to 255."""
    if isinstance(image, Tensor):
        return image.detach().float().cpu().permute(1, 2, 0).clamp(0, 1) * 255
    return torch.from_numpy(np.asarray(image)[..., :3].astype(np.float32))


def _nearest(colours: Tensor, candidates: Tensor) -> Tensor:
    return torch.cdist(colours.reshape(-1, 3), candidates).argmin(-1).reshape(colours.shape[:-1])


def look(pixels: Tensor) -> tuple[Said, float, float]:
    """What a picture [H, W, 3] shows, the IoU of the best template, and the subject's centroid (x, half-canvas units).

    A picture without a subject is all None but its background.
    """
    height, width, _ = pixels.shape
    names = list(PALETTE)
    # No subject reaches the outer columns, so each row's background, gradient included, is their median.
    rim = max(2, width // 32)
    rows = torch.cat([pixels[:, :rim], pixels[:, -rim:]], dim=1).median(dim=1).values
    background = int(_nearest(rows.median(dim=0).values, _COLOURS))
    different = (pixels - rows[:, None]).norm(dim=-1) > 40
    if different.float().mean() < 0.005:
        return Said(background=names[background]), 0.0, 0.0
    colour = int(_nearest(pixels[different].median(dim=0).values, _COLOURS))
    if colour == background:
        return Said(background=names[background]), 0.0, 0.0
    # The subject is what is nearer to its own colour than to the background or to what a face is painted with.
    others = {names.index("white"), names.index("black")} - {colour, background}
    candidates = torch.stack([_COLOURS[colour], *(_COLOURS[o] for o in sorted(others))])
    to_rows = (pixels - rows[:, None]).norm(dim=-1)
    to_paint = torch.cdist(pixels.reshape(-1, 3), candidates).reshape(height, width, -1)
    mask = (to_paint[..., 0] < to_rows) & (to_paint.argmin(-1) == 0)
    if mask.sum() < 0.005 * mask.numel():
        return Said(background=names[background]), 0.0, 0.0
    x, y = grids(height, width)
    centre = torch.stack([(x * mask).sum() / mask.sum(), (y * mask).sum() / mask.sum()])
    # Every template is fitted on a quarter of the pixels; only those that come near the best are fitted on all.
    rough = {
        s: _fit(s, mask, _by_moments(s, mask, centre, names[colour]), names[colour], 2, (0.12, 0.06)) for s in SUBJECTS
    }
    near = max(iou for iou, _ in rough.values()) - 0.1
    fits = {
        s: _fit(s, mask, guess, names[colour], 1, (0.03, 0.015))[0] for s, (iou, guess) in rough.items() if iou >= near
    }
    subject = max(fits, key=fits.__getitem__)
    place = float(centre[0]) / (width / 2)
    position = min(POSITIONS, key=lambda name: abs(POSITIONS[name] - place))
    return Said(subject, names[colour], names[background], position), fits[subject], place


def _template(subject: str, colour: str, u: Tensor, v: Tensor) -> Tensor:
    """Where a subject of this colour shows it: a face's features are holes, unless they are of the same colour."""
    inside = distance(subject, u, v) < 0
    if subject == "face":
        for paint, signed in face_features(u, v):
            inside = torch.where(signed < 0, torch.tensor(paint == colour), inside)
    return inside


def _by_moments(subject: str, mask: Tensor, centre: Tensor, colour: str) -> Tensor:
    """x, y and radius in pixels of the template with the centroid and the area of `mask`."""
    unit = torch.linspace(-1.1, 1.1, 221)
    area = _template(subject, colour, unit[None, :], unit[:, None]).float().mean() * 2.2**2
    return torch.cat([centre, (mask.sum() / area).sqrt()[None]])


def _fit(
    subject: str, mask: Tensor, place: Tensor, colour: str, stride: int, shares: tuple[float, ...]
) -> tuple[float, Tensor]:
    """The highest IoU of the subject's template with `mask`, and where: x, y and radius in pixels.

    Each round looks around the best place so far, in steps of a share of the radius.
    `stride` leaves out rows and columns.
    """
    x, y = grids(*mask.shape)
    x, y, mask = x[:, ::stride], y[::stride], mask[::stride, ::stride]
    offsets = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    best = 0.0
    for share in shares:
        tried = place + offsets * share * place[2]
        u = (x - tried[:, 0, None, None]) / tried[:, 2, None, None]
        v = (y - tried[:, 1, None, None]) / tried[:, 2, None, None]
        drawn = _template(subject, colour, *torch.broadcast_tensors(u, v))
        iou = (drawn & mask).sum((1, 2)) / (drawn | mask).sum((1, 2))
        index = int(iou.argmax())
        place, best = tried[index], float(iou[index])
    return best, place
