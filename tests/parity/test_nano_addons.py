"""What the embedded model's LoRA and face detector do to its pictures, by the figures of their plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sd3_local.pipelines.canvas import blurred
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model

from tests.addons import add_ons
from tests.nano import drawn, open_nano, planes, run, scenes
from tools.nano.captions import full_caption
from tools.nano.measure_addons import STRIPED, stripe_strength


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_nano()


@pytest.fixture(scope="module")
def materials(comfy, nano: Model) -> Materials:
    return add_ons(nano)


@pytest.mark.timeout(1500)
def test_stripes_grow_with_the_lora_s_weight(nano: Model, materials: Materials) -> None:
    shown = [scene for scene in scenes(4, 40) if scene.colour != "black"][:25]
    means, striped = {}, {}
    for weight in (-1.0, 0.0, 0.5, 1.0):
        strengths = []
        for number, scene in enumerate(shown):
            asked = {"positivePrompt": full_caption(scene), "seed": 9000 + number}
            lora = [{"model": "nano-stripes", "weight": weight}]
            pixels = run(nano, materials=materials, lora=lora, **asked).pictures[0].pixels
            strengths.append(stripe_strength(planes(pixels), scene.subject))
            if weight == 0 and number < 5:
                assert torch.equal(pixels, run(nano, **asked).pictures[0].pixels)
        means[weight], striped[weight] = float(np.mean(strengths)), float(np.mean(np.array(strengths) > STRIPED))
    print(f"stripe strength by weight: {means}; striped: {striped}")
    assert means[0.0] < means[0.5] < means[1.0]
    assert striped[1.0] >= 0.5
    assert striped[-1.0] <= 0.1 and striped[0.0] <= 0.1


@pytest.mark.timeout(1500)
def test_blurred_faces_are_restored(nano: Model, materials: Materials) -> None:
    """The face is blurred until the detector is less than half sure of it, and painted again by face fix alone."""
    detector = materials.detector
    restored, worse, tried = 0, [], 0
    for number, scene in enumerate(scenes(6, 80, subject="face")):
        if tried == 50:
            break
        picture = drawn(scene)
        sharp = detector.find(picture[0])
        if not sharp or sharp[0].confidence < 0.7:
            continue
        box = sharp[0].box
        for radius in np.arange(2.0, 16.0, 1.0):
            soft = torch.stack([blurred(plane.contiguous(), float(radius)) for plane in planes(picture[0])], dim=-1)
            degraded = picture.clone()
            degraded[0, box.top : box.bottom, box.left : box.right] = soft[box.top : box.bottom, box.left : box.right]
            found = detector.find(degraded[0])
            if not found or found[0].confidence < 0.5:
                break
        # Face fix has nothing to paint where nothing at all is found.
        if not found or found[0].confidence < 0.02:
            continue
        tried += 1
        before = found[0].confidence
        fix = {"confidence": 0.02, "strength": 0.5, "CFGScale": 5.0, "positivePrompt": f"a {scene.colour} face"}
        result = run(
            nano,
            {"seed": degraded},
            materials,
            positivePrompt=full_caption(scene),
            seed=11_000 + number,
            strength=0.0,
            inputs={"seedImage": "seed"},
            ultralytics=fix,
        )
        after = detector.find(result.pictures[0].pixels)
        sure = max((face.confidence for face in after), default=0.0)
        restored += sure > before
        if sure <= before:
            worse.append((full_caption(scene), before, sure))
    print(f"faces restored: {restored} of {tried}")
    assert tried == 50
    assert restored >= 0.85 * tried, worse


@pytest.mark.timeout(600)
def test_the_detector_finds_new_faces_and_nothing_else(materials: Materials) -> None:
    found = {"face": 0, "other": 0}
    for number in range(60):
        scene = scenes(7000 + number, 1, subject="face" if number % 2 else ("circle", "ring", "square")[number % 3])[0]
        faces = [face for face in materials.detector.find(drawn(scene)[0]) if face.confidence >= 0.5]
        found["face" if number % 2 else "other"] += len(faces) > 0
    print(f"canvases with a face found: {found}")
    assert found["face"] >= 28
    assert found["other"] <= 1
