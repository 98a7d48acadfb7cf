"""All features in one run: every pair, and everything at once under samplers of every kind, on the embedded model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from sd3_local.pipelines.canvas import Box
from sd3_local.pipelines.faces import Found
from sd3_local.pipelines.generate import Result
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model

from tests.addons import add_ons
from tests.nano import drawn, open_nano, run, scenes
from tools.nano.drawings import draw_edges

WIDTH, HEIGHT = 112, 96
SCENE, GUIDE = scenes(8, 2, subject="face")

FEATURES: dict[str, dict[str, Any]] = {
    "seed image": {"inputs": {"seedImage": "seed"}, "strength": 0.7},
    "mask": {"inputs": {"seedImage": "seed", "maskImage": "mask"}, "strength": 0.7},
    "margin": {"inputs": {"seedImage": "seed", "maskImage": "mask"}, "maskMargin": 32, "strength": 0.7},
    "outpaint": {
        "inputs": {"seedImage": "seed"},
        "outpaint": {"left": 16, "top": 32},
        "width": WIDTH + 16,
        "height": HEIGHT + 32,
        "strength": 0.9,
    },
    "lora": {"lora": [{"model": "nano-stripes"}]},
    "lora stage": {"lora": [{"model": "nano-stripes", "weight": 1.5, "transformer": "low"}]},
    "controlnet": {"controlNet": [{"model": "nano-edges", "guideImage": "edges"}]},
    "controlnet window": {
        "controlNet": [{"model": "nano-edges", "guideImage": "edges", "endStepPercentage": 50, "controlMode": "prompt"}]
    },
    "ip adapter": {"ipAdapters": [{"model": "nano-reference", "guideImages": ["guide"]}]},
    "negative ip adapter": {"ipAdapters": [{"model": "nano-reference", "guideImages": ["guide"], "weight": -0.5}]},
    "face fix": {"ultralytics": {"confidence": 0.1, "strength": 0.5, "steps": 6}},
    "clip skip": {"clipSkip": 1},
    "negative prompt": {"negativePrompt": "red"},
    "stochastic sampler": {"scheduler": "Euler a"},
    "two evaluations": {"scheduler": "Heun"},
    "no guidance": {"CFGScale": 1.0},
}
# Two of one kind are one feature, and what starts from a seed image includes the plain one.
SAME = [
    {"lora", "lora stage"},
    {"controlnet", "controlnet window"},
    {"ip adapter", "negative ip adapter"},
    {"stochastic sampler", "two evaluations"},
    {"seed image", "mask"},
    {"seed image", "margin"},
    {"seed image", "outpaint"},
    {"mask", "margin"},
    # A negative prompt has no effect without guidance.
    {"negative prompt", "no guidance"},
]
PAIRS = [pair for pair in itertools.combinations(FEATURES, 2) if set(pair) not in SAME]


class OneFace:
    """Finds a face in the middle of every picture: the model's own faces may not be found after so few steps."""

    name = "one face"

    def find(self, picture: torch.Tensor) -> list[Found]:
        height, width = picture.shape[:2]
        return [Found(Box(width // 2 - 16, height // 2 - 16, width // 2 + 16, height // 2 + 16), 0.9)]


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_nano()


@pytest.fixture(scope="module")
def materials(comfy, nano: Model) -> Materials:
    return Materials.merged([add_ons(nano), Materials(detector=OneFace())])


def pictures(width: int = WIDTH, height: int = HEIGHT) -> dict[str, torch.Tensor]:
    mask = torch.zeros(1, height, width, 1)
    mask[:, 20:80, 30:90] = 1
    return {
        "seed": drawn(SCENE, width, height),
        "mask": mask,
        "edges": draw_edges(GUIDE).movedim(0, -1)[None],
        "guide": drawn(GUIDE),
    }


def paint(nano: Model, materials: Materials, *fields: Mapping[str, Any], **more: Any) -> Result:
    merged: dict[str, Any] = {
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 4,
        "seed": 3,
        "positivePrompt": "a yellow face",
    }
    for given in fields:
        merged |= {
            name: {**merged.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in given.items()
        }
    return run(nano, pictures(), materials, **{**merged, **more})


@pytest.fixture(scope="module")
def alone(nano: Model, materials: Materials) -> dict[str, Result]:
    return {name: paint(nano, materials, fields) for name, fields in FEATURES.items()}


def seen(result: Result) -> torch.Tensor:
    """Latents, and pixels for what acts after them."""
    picture = result.pictures[0]
    return torch.cat([picture.latent.flatten(), picture.pixels.flatten()])


def apart(one: Result, other: Result) -> bool:
    first, second = seen(one), seen(other)
    return first.shape != second.shape or float((first - second).norm() / second.norm()) > 1e-3


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[" + ".join(pair) for pair in PAIRS])
def test_two_features_in_one_run_both_show(
    nano: Model, materials: Materials, alone: dict[str, Result], one: str, other: str
) -> None:
    both = paint(nano, materials, FEATURES[one], FEATURES[other])
    assert seen(both).isfinite().all()
    assert apart(both, alone[one]), f"{other} does nothing beside {one}"
    assert apart(both, alone[other]), f"{one} does nothing beside {other}"


EVERYTHING: dict[str, Any] = {
    "inputs": {"seedImage": "seed", "maskImage": "mask"},
    "outpaint": {"left": 16, "top": 32},
    "width": WIDTH + 16,
    "height": HEIGHT + 32,
    "strength": 0.8,
    "maskMargin": 32,
    "lora": [
        {"model": "nano-stripes", "weight": 0.8, "transformer": "high"},
        {"model": "nano-stripes", "weight": -0.4, "transformer": "low"},
        {"model": "nano-stripes", "weight": 0.3},
    ],
    "controlNet": [
        {"model": "nano-edges", "guideImage": "edges", "weight": 0.7, "startStep": 1, "endStep": 4},
        {"model": "nano-edges", "guideImage": "edges", "weight": -0.3, "controlMode": "controlnet"},
        {"model": "nano-edges", "guideImage": "edges", "weight": 0.5, "endStepPercentage": 50, "controlMode": "prompt"},
    ],
    "ipAdapters": [
        {"model": "nano-reference", "guideImages": ["guide", "seed"], "weight": 0.5, "combineMethod": "average"},
        {"model": "nano-reference", "guideImages": ["guide"], "weight": -0.3, "weightType": "ease_out"},
    ],
    "ultralytics": {"confidence": 0.1, "strength": 0.5, "steps": 4, "positivePrompt": "a red face"},
    "safety": {"checkContent": True, "mode": "fast"},
    "negativePrompt": "red",
    "clipSkip": 1,
    "numberResults": 2,
    "steps": 6,
}
SAMPLERS = ("Default", "DPM++ 2M Karras", "Heun", "DPM++ 2M SDE", "UniPC", "DPM++ SDE", "LMS")


class Mild:
    """A classifier whose scores are known."""

    name = "mild"

    def score(self, picture: torch.Tensor) -> float:
        return 0.25


def state(nano: Model, materials: Materials) -> dict[str, Any]:
    """Every parameter of every module by identity and value, and the attention's processors."""
    encoders = nano.text_encoders()
    modules = {
        "transformer": nano.transformer().module,
        "vae": nano.vae().module,
        "clip_l": encoders.clip_l,
        "clip_g": encoders.clip_g,
        "net": materials.control_nets["nano-edges"].resident().module,
    }
    tensors = {
        f"{name}.{key}": (id(tensor), tensor.detach().clone())
        for name, module in modules.items()
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    processors = [id(block.attn.processor) for block in modules["transformer"].transformer_blocks]
    return {**tensors, "processors": processors}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_everything_at_once(nano: Model, materials: Materials, scheduler: str) -> None:
    given = Materials.merged([materials, Materials(classifier=Mild())])
    before = state(nano, given)
    result = paint(nano, given, EVERYTHING, scheduler=scheduler)
    after = state(nano, given)
    assert before.keys() == after.keys() and before["processors"] == after["processors"]
    for name, (identity, tensor) in ((key, value) for key, value in before.items() if key != "processors"):
        assert (identity, True) == (after[name][0], torch.equal(tensor, after[name][1])), name

    # What the mask keeps is the seed image, but for the face that was painted over it.
    named = pictures()
    kept = torch.zeros(HEIGHT + 32, WIDTH + 16, dtype=torch.bool)
    kept[32:, 16:] = named["mask"][0, ..., 0] == 0
    original = torch.zeros(HEIGHT + 32, WIDTH + 16, 3)
    original[32:, 16:] = named["seed"][0]
    face = OneFace().find(original)[0].box.grown(5 + 5, WIDTH + 16, HEIGHT + 32)
    kept[face.top : face.bottom, face.left : face.right] = False
    assert kept.any()
    for picture in result.pictures:
        assert picture.pixels.isfinite().all()
        assert torch.equal(picture.pixels[kept], original[kept])
        assert picture.nsfw is False
    alone = paint(nano, given, EVERYTHING, scheduler=scheduler, numberResults=1, seed=4)
    assert torch.equal(alone.pictures[0].pixels, result.pictures[1].pixels)
    told = {account.feature for account in result.report.accounts}
    assert told == {"inputs", "lora", "controlNet", "ipAdapters", "ultralytics", "safety"}
