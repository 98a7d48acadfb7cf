"""Seed images, masks and extensions in a real graph, from ComfyUI's own Load Image to its Save Image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.comfy_host import ComfyHost, Run
from tests.graphs import text_to_image, with_seed_image
from tests.judge import judge
from tools.nano.world import Scene, draw_scene

SIDE = 128
SCENE = Scene("square", "green", "yellow", "left", -0.4, 0.0, 0.34)


def pixels(host: ComfyHost, run: Run) -> np.ndarray:
    assert run.status == "success", run.error
    return np.asarray(Image.open(io.BytesIO(host.view(run.images[0]))).convert("RGB"))


@pytest.fixture(scope="module")
def seed_image(host: ComfyHost) -> np.ndarray:
    """A green square on the left, whose left half is transparent: that is the mask which Load Image gives."""
    drawn = (draw_scene(SCENE, SIDE, SIDE).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
    alpha[:, : SIDE // 2] = 0
    Image.fromarray(np.concatenate([drawn, alpha], axis=-1)).save(host.input / "masked.png")
    Image.fromarray(drawn).save(host.input / "plain.png")
    return drawn


def report(run: Run) -> str:
    return run.outputs["6"]["text"][0]


def test_inpainting_changes_what_is_masked_and_not_a_pixel_more(host: ComfyHost, seed_image: np.ndarray) -> None:
    prompt = "a red circle on the left, yellow background"
    graph = with_seed_image(text_to_image(positivePrompt=prompt, steps=20), "masked.png", strength=1.0)
    run = host.run(graph)
    after = pixels(host, run)
    assert np.array_equal(after[:, SIDE // 2 :], seed_image[:, SIDE // 2 :])
    assert judge(after, prompt).right
    assert "mask: 50% of the picture may change" in report(run)


def test_strength_0_is_the_seed_image(host: ComfyHost, seed_image: np.ndarray) -> None:
    run = host.run(with_seed_image(text_to_image(), "plain.png", strength=0.0, masked=False))
    assert np.array_equal(pixels(host, run), seed_image)
    assert "kept as it is" in report(run)


def test_outpainting_keeps_the_original(host: ComfyHost, seed_image: np.ndarray) -> None:
    graph = with_seed_image(text_to_image(width=SIDE + 32, steps=8), "plain.png", strength=0.95, masked=False)
    graph["12"] = {"class_type": "SD3LocalOutpaint", "inputs": {"top": 0, "right": 32, "bottom": 0, "left": 0}}
    graph["3"]["inputs"]["outpaint"] = ["12", 0]
    assert np.array_equal(pixels(host, host.run(graph))[:, :SIDE], seed_image)
    graph["3"]["inputs"]["width"] = SIDE
    refused = host.run(graph)
    assert refused.status == "error"
    assert "width is 128" in refused.error and "set width to 160" in refused.error


def test_a_margin_is_between_32_and_128(host: ComfyHost, seed_image: np.ndarray) -> None:
    run = host.run(with_seed_image(text_to_image(), "masked.png", maskMargin=32))
    assert "crop: 96 x 128 px at (0, 0)" in report(run)
    refused = host.run(with_seed_image(text_to_image(), "masked.png", maskMargin=5))
    assert refused.status == "error"
    assert "maskMargin is 5; it must be an integer from 32 to 128" in refused.error
