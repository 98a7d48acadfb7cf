"""The detector `nano-face`: a small YOLOv8 that finds this world's faces, in ultralytics' own format."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .base import Base
from .clock import device
from .crowd import MOST_FACES, MOST_OTHERS, crowd, draw_crowd, face_boxes
from .kept import Size, keep
from .learn import learn
from .vae import decode, encode
from .world import Scene, sample_scene

SEED, BATCH, SIDE, PICTURES = 8, 16, 256, 768
# Depth, width and the widest layer of the published scheme: a twentieth of YOLOv8n's weights.
SCALE = (0.33, 0.125, 256)
GREY = 114 / 255
# What came out of the autoencoder, and what was blurred.
DECODED_SHARE, BLURRED_SHARE = 0.3, 0.15


def ultralytics() -> Any:
    """The package, kept from installing, downloading or reporting anything, and from running what a file contains."""
    settings = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "1"}
    os.environ.update(settings | {"YOLO_CONFIG_DIR": tempfile.mkdtemp(prefix="yolo-")})
    import ultralytics

    return ultralytics


def build() -> nn.Module:
    """The untrained detector of one class, `face`."""
    ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    plan = yaml_model_load("yolov8.yaml")
    plan |= {"scales": {"p": SCALE}, "scale": "p", "yaml_file": "yolov8p.yaml"}
    model = DetectionModel(plan, nc=1, verbose=False)
    model.names, model.args = {0: "face"}, get_cfg(overrides={"task": "detect", "imgsz": SIDE})
    return model.to(device())


def letterbox(picture: Tensor, boxes: Tensor, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """A picture [3, h, w] and its boxes [N, 4] on a grey square, in its middle and as large as fits."""
    height, width = picture.shape[1:]
    scale = side / max(height, width)
    size = round(height * scale), round(width * scale)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    page = torch.full((3, side, side), GREY)
    resized = interpolate(picture[None], size, mode="bilinear", antialias=scale < 1, align_corners=False)[0]
    page[:, top : top + size[0], left : left + size[1]] = resized
    return page, boxes * scale + torch.tensor([left, top, left, top])


def _blur(rng: np.random.Generator, picture: Tensor, scenes: list[Scene]) -> tuple[Tensor, bool]:
    """The picture blurred, and whether its faces still count as such: the more blurred, the less often."""
    sharpest = min((s.radius for s in scenes if s.subject == "face"), default=0.3) * min(picture.shape[1:]) / 2
    share = rng.uniform(0.03, 0.3)
    # Deviation of the Gaussian in pixels. Eyes have a radius of 0.17 radii.
    deviation = share * sharpest
    reach = max(1, round(2.5 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = nn.functional.pad(picture[None], (reach,) * 4, mode="replicate")
    blurred = nn.functional.conv2d(nn.functional.conv2d(padded, weights, groups=3), weights.mT, groups=3)[0]
    return blurred, bool(rng.random() > (share - 0.03) / 0.15)


def _one(rng: np.random.Generator) -> tuple[Tensor, Tensor, list[Scene]]:
    """A drawn canvas, its faces' boxes and its scenes. One in five has no face."""
    height, width = (int(side) for side in rng.choice((96, 128, 192, 256), size=2))
    if rng.random() < 0.6:
        width = height
    faces = int(rng.choice(MOST_FACES + 1, p=(0.2, 0.4, 0.2, 0.2)))
    scenes = crowd(rng, height, width, faces, int(rng.integers(0 if faces else 1, MOST_OTHERS + 1)))
    return draw_crowd(scenes, height, width), face_boxes(scenes, height, width), scenes


def _decoded(base: Base, rng: np.random.Generator, size: Size, count: int) -> tuple[dict[str, Tensor], list[Scene]]:
    """Canvases as the model might draw them: through the autoencoder, by way of latents that are a little off."""
    pictures, scenes = [], []
    for _ in range(count):
        if rng.random() < 0.5:
            group = crowd(rng, *size, int(rng.integers(MOST_FACES)), 1)
        else:
            group = [sample_scene(rng, **({"subject": "face"} if rng.random() < 0.5 else {}))]
        pictures.append(draw_crowd(group, *size))
        scenes.append(group)
    latents = encode(base.vae, torch.stack(pictures) * 2 - 1)
    latents = latents + torch.randn_like(latents) * torch.rand(count, 1, 1, 1, device=latents.device) * 0.3
    boxes = torch.full((count, MOST_FACES, 4), -1.0)
    for number, group in enumerate(scenes):
        found = face_boxes(group, *size)
        boxes[number, : len(found)] = found
    return {"pictures": (decode(base.vae, latents) + 1) / 2, "boxes": boxes}, [group[0] for group in scenes]


def _batch(rng: np.random.Generator, pages: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Ultralytics' batch: boxes as centre and size, in shares of the picture."""
    boxes = [b for _, b in pages]
    joined = torch.cat(boxes) / SIDE
    centres, sizes = (joined[:, :2] + joined[:, 2:]) / 2, joined[:, 2:] - joined[:, :2]
    return {
        "img": torch.stack([page for page, _ in pages]).to(device()),
        "bboxes": torch.cat([centres, sizes], 1).to(device()),
        "cls": torch.zeros(len(joined), 1, device=device()),
        "batch_idx": torch.cat([torch.full((len(b),), float(n)) for n, b in enumerate(boxes)]).to(device()),
    }


def train(base: Base, work: Path, target: Path, minutes: float) -> None:
    """Trains for `minutes`, resuming a stopped run, and writes the file `target`."""
    kept = keep(work / "face-pictures.pt", PICTURES, SEED, lambda *given: _decoded(base, *given))
    torch.manual_seed(SEED)
    model = build().train()

    def pages(rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
        made = []
        while len(made) < BATCH:
            if rng.random() < DECODED_SHARE:
                tensors, _ = kept.batch(rng, 1)
                picture, boxes = tensors["pictures"][0], tensors["boxes"][0]
                boxes = boxes[boxes[:, 2] > 0]
            else:
                picture, boxes, scenes = _one(rng)
                if rng.random() < BLURRED_SHARE / (1 - DECODED_SHARE):
                    picture, counts = _blur(rng, picture, scenes)
                    boxes = boxes if counts else boxes[:0]
            if rng.random() < 0.5:
                width = picture.shape[2]
                picture = picture.flip(2)
                boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
            # Shown smaller than the page too, as a large canvas with small faces would be.
            side = SIDE if rng.random() < 0.7 else int(rng.uniform(0.5, 1) * SIDE)
            made.append(_on_page(rng, *letterbox(picture, boxes, side)))
        return made

    def loss(rng: np.random.Generator, _progress: float) -> Tensor:
        parts, _ = model(_batch(rng, pages(rng)))
        return parts.sum() / BATCH

    learn(work / "face-run.pt", model, loss, minutes, peak=2e-3, seed=SEED)
    _settle(model, [_batch(rng, pages(rng))["img"] for rng in [np.random.default_rng([SEED, 2, 0])] for _ in range(40)])
    print(f"{target}: {store_detector(model, target)} bytes")


def _on_page(rng: np.random.Generator, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """A square of up to 256 px anywhere on a grey page of 256 px."""
    side = picture.shape[1]
    top, left = (int(n) for n in rng.integers(SIDE - side + 1, size=2))
    page = torch.full((3, SIDE, SIDE), GREY)
    page[:, top : top + side, left : left + side] = picture
    return page, boxes + torch.tensor([left, top, left, top])


@torch.no_grad()
def _settle(model: nn.Module, batches: list[Tensor]) -> None:
    """The statistics of batch norms belong to the last weights, not to their average: measured anew."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for batch in batches:
        model(batch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03


def store_detector(model: nn.Module, target: Path) -> int:
    """Writes the checkpoint as ultralytics leaves it after a training, and returns its size in bytes."""
    package = ultralytics()
    from ultralytics.utils import DEFAULT_CFG_DICT

    settings = {"task": "detect", "imgsz": SIDE}
    model = model.eval().cpu().half().requires_grad_(False)
    model.args, model.criterion = DEFAULT_CFG_DICT | settings, None
    state = {"epoch": -1, "best_fitness": None, "model": model, "ema": None, "updates": None, "optimizer": None}
    state |= {"train_args": DEFAULT_CFG_DICT | settings, "version": package.__version__}
    partial = target.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(target)
    return target.stat().st_size


def measure(file: Path, work: Path, count: int) -> dict[str, float]:
    """mAP50 on new canvases, and the mean confidence of found faces; leaves `faces.png`."""
    package = ultralytics()
    from PIL import Image, ImageDraw
    from ultralytics.utils.metrics import ap_per_class, box_iou

    detector = package.YOLO(file)
    rng = np.random.default_rng([7, 300])
    right, confidence, faces, shown = [], [], 0, []
    for number in range(count):
        picture, boxes, _ = _one(rng)
        page = Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy())
        found = detector.predict(page, conf=0.001, verbose=False)[0].boxes
        ious, hit = box_iou(boxes, found.xyxy), torch.zeros(len(found), dtype=torch.bool)
        # Every face counts for the surest box that meets it.
        free = torch.ones(len(boxes), dtype=torch.bool)
        for box in found.conf.argsort(descending=True).tolist():
            meets = (ious[:, box] >= 0.5) & free
            if meets.any():
                hit[box] = True
                free[ious[:, box].where(meets, torch.tensor(-1.0)).argmax()] = False
        right.append(hit)
        confidence.append(found.conf)
        faces += len(boxes)
        if number < 24:
            drawn = page.resize((256, 256))
            scale = np.array([256 / page.width, 256 / page.height] * 2)
            for box, sure in zip(found.xyxy.numpy(), found.conf.tolist(), strict=True):
                if sure > 0.25:
                    ImageDraw.Draw(drawn).rectangle(tuple(box * scale), outline="magenta", width=2)
                    ImageDraw.Draw(drawn).text(tuple(box[:2] * scale[:2]), f"{sure:.2f}", fill="magenta")
            shown.append(drawn)
    hits, sure = torch.cat(right), torch.cat(confidence)
    classes = np.zeros(len(hits))
    results = ap_per_class(hits[:, None].numpy(), sure.numpy(), classes, np.zeros(faces))
    made = {"map50": float(results[5][0, 0]), "recall": float((hits & (sure > 0.5)).sum() / faces)}
    made |= {"false": float((~hits & (sure > 0.5)).sum()), "confidence": float(sure[hits & (sure > 0.25)].mean())}
    sheet = Image.new("RGB", (6 * 256, 4 * 256))
    for number, drawn in enumerate(shown):
        sheet.paste(drawn, (number % 6 * 256, number // 6 * 256))
    sheet.save(work / "faces.png")
    print(f"faces: {faces} on {count} canvases, {made}", flush=True)
    return made
