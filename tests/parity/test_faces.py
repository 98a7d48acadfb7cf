"""Face fix in whole runs: found as ultralytics finds, painted as img2img paints, and nothing else touched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sd3_local.pipelines.canvas import Box
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.faces import Found, open_detector
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.detectors import save_detector
from tests.engines import open_model, request

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "assets" / "nano" / "sd3-nano.safetensors"
FACE = Box(40, 20, 72, 52)


class FixedDetector:
    name = "fixed"

    def __init__(self, *found: Found):
        self.found = found

    def find(self, picture: torch.Tensor) -> tuple[Found, ...]:
        return self.found


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(NANO)


def run(model: Model, *boxes: Box, **fields) -> Result:
    found = [Found(box, 0.95 - 0.01 * index) for index, box in enumerate(boxes)]
    return generate(request(**fields), model, Unwatched(), Materials(detector=FixedDetector(*found)))


def state(model: Model) -> tuple[str, list[int]]:
    """All values of the model's modules, and which attention processors they have."""
    digest = hashlib.sha256()
    for resident in model._residents.values():
        for tensor in resident.module.state_dict().values():
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest(), [id(part) for part in model.transformer().module.attn_processors.values()]


def test_only_the_faces_change_and_the_model_does_not(model: Model) -> None:
    options = {"strength": 0.6, "steps": 4, "maskPadding": 4, "maskBlur": 6, "positivePrompt": "a face"}
    plain = run(model, steps=4, numberResults=2)
    before = state(model)
    fixed = run(model, FACE, Box(0, 0, 16, 20), steps=4, numberResults=2, ultralytics=options)
    assert state(model) == before
    assert len({picture.seed for picture in fixed.pictures}) == 2
    reach = 4 + 6
    kept = torch.ones(64, 96, dtype=torch.bool)
    for box in (FACE, Box(0, 0, 16, 20)):
        grown = box.grown(reach, 96, 64)
        kept[grown.top : grown.bottom, grown.left : grown.right] = False
    for old, new in zip(plain.pictures, fixed.pictures, strict=True):
        assert torch.equal(old.pixels[kept], new.pixels[kept])
        assert torch.equal(old.latent, new.latent)
        changed = (old.pixels - new.pixels).abs()[FACE.top : FACE.bottom, FACE.left : FACE.right]
        assert changed.mean() > 0.01
    lines = str(fixed.report).splitlines()
    assert sum(line.startswith("faces of result") for line in lines) == 4


def test_a_face_that_is_the_picture_is_img2img_of_it(model: Model) -> None:
    """With a hard mask around all of the picture, at its own size, nothing is left of face fix but img2img."""
    side = 64
    size = {"width": side, "height": side, "seed": 9}
    asked = {"strength": 0.5, "steps": 8, "CFGScale": 3.0, "maskPadding": 0, "maskBlur": 0}
    asked |= {"positivePrompt": "a green cross", "negativePrompt": "red"}
    first = run(model, **size).pictures[0].pixels
    ours = run(model, Box(0, 0, side, side), **size, ultralytics=asked).pictures[0].pixels
    again = request(
        **size,
        inputs={"seedImage": "first"},
        **{name: asked[name] for name in ("strength", "steps", "CFGScale", "positivePrompt", "negativePrompt")},
    )
    theirs = generate(again, model, Unwatched(), Materials(pictures={"first": first[None]})).pictures[0].pixels
    assert (ours - first).abs().mean() > 0.01
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-4


def test_without_prompts_of_its_own_a_face_has_the_runs(model: Model) -> None:
    options = {"strength": 0.6, "steps": 4}
    own = {**options, "positivePrompt": request().positive_prompt}
    alike = [run(model, FACE, steps=4, ultralytics=given).pictures[0].pixels for given in (options, own)]
    assert torch.equal(*alike)


def test_nothing_found_and_strength_0_leave_the_picture(model: Model) -> None:
    plain = run(model, steps=4).pictures[0].pixels
    none = run(model, steps=4, ultralytics={"steps": 4})
    assert torch.equal(none.pictures[0].pixels, plain)
    assert "none found by fixed, the picture is unchanged" in str(none.report)
    still = run(model, FACE, steps=4, ultralytics={"steps": 4, "strength": 0.0})
    assert torch.equal(still.pictures[0].pixels, plain)


def test_without_a_detector_nothing_is_sampled(model: Model) -> None:
    with pytest.raises(RequestError) as caught:
        generate(request(ultralytics={}), model, Unwatched())
    assert [fault.code for fault in caught.value.faults] == ["missingDetector"]


@pytest.mark.parametrize(
    ("size", "kind"), [((64, 96), ""), ((200, 120), ""), ((333, 500), ""), ((90, 70), "-seg"), ((90, 70), "-pose")]
)
def test_it_finds_what_ultralytics_finds(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    path = save_detector(tmp_path / "face.pt", side=160, kind=kind)
    picture = torch.rand(*size, 3, generator=torch.Generator().manual_seed(2))
    ours = open_detector(path).find(picture)
    from ultralytics import YOLO

    pixels = (picture * 255).round().to(torch.uint8).numpy()[..., ::-1]
    stock = YOLO(path).predict(np.ascontiguousarray(pixels), conf=0.01, imgsz=160, verbose=False, device="cpu")
    theirs = stock[0].boxes
    assert len(ours) == len(theirs) > 3
    confidences = torch.tensor([face.confidence for face in ours])
    assert torch.allclose(confidences, theirs.conf, atol=1e-4)
    boxes = torch.tensor([face.box for face in ours], dtype=torch.float32)
    # Ours are whole pixels that cover theirs.
    low, high = theirs.xyxy - boxes, boxes - theirs.xyxy
    assert low[:, :2].min() > -1e-2
    assert low[:, :2].max() < 1 + 1e-2
    assert high[:, 2:].min() > -1e-2
    assert high[:, 2:].max() < 1 + 1e-2


def test_the_library_changes_nothing_for_others() -> None:
    code = """if True:
        import logging, os, socket, sys, warnings
        before = dict(os.environ)
        from tools.pack import import_pack
        import_pack()
        import cv2, numpy as np, torch
        from PIL import Image
        from torch._tensor_str import PRINT_OPTS
        os.environ.clear(); os.environ.update(before)
        asked = []
        socket.getaddrinfo = lambda *given, **_: asked.append(given)

        def state():
            return [
                dict(os.environ), torch.save, torch.load, str(vars(PRINT_OPTS)), np.get_printoptions(),
                cv2.getNumThreads(), cv2.imread, Image.open, list(warnings.filters), torch.get_num_threads(),
                list(sys.argv), list(logging.getLogger().handlers), sys.stdout, os.listdir(),
                torch.serialization.get_safe_globals(),
            ]

        first = state()
        from sd3_local.pipelines.faces.library import load_library
        (tasks,) = load_library("ultralytics.nn.tasks")
        load_library("ultralytics.data.augment", "ultralytics.utils.nms", "ultralytics.utils.ops")
        second = state()
        print([index for index, pair in enumerate(zip(first, second)) if pair[0] != pair[1]], asked, tasks.SAFE_LOAD)
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "ULTRALYTICS_"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "[] [] True\n"
    assert "ltralytics" not in done.stderr
