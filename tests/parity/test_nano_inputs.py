"""What inpainting and outpainting do to pictures of the embedded model's world, by its judge."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.model import Model

from tests.judge import judge
from tests.nano import SIDE, drawn, halves, open_nano, planes, run, scenes
from tools.nano.captions import full_caption
from tools.nano.world import PALETTE, Scene

REACH = 36
"""Pixels around a subject's centre that are masked: no subject has a larger radius than 27."""


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_nano()


def around(scene: Scene) -> torch.Tensor:
    """White in a square around the subject, [1, height, width, 1]."""
    mask = torch.zeros(1, SIDE, SIDE, 1)
    x, y = (int((place + 1) * SIDE / 2) for place in (scene.x, scene.y))
    mask[:, max(0, y - REACH) : y + REACH, max(0, x - REACH) : x + REACH] = 1
    return mask


@pytest.mark.timeout(1500)
def test_another_subject_is_painted_in_the_mask_and_nothing_else_changes(nano: Model) -> None:

    def judged(shown: tuple[int, Scene]) -> tuple[str, bool]:
        number, scene = shown
        wanted = scenes(1000 + number, 1, background=scene.background, position=scene.position)[0]
        prompt, picture, mask = full_caption(wanted), drawn(scene), around(scene)
        result = run(
            nano,
            {"seed": picture, "mask": mask},
            positivePrompt=prompt,
            seed=5000 + number,
            strength=1.0,
            inputs={"seedImage": "seed", "maskImage": "mask"},
        )
        pixels = result.pictures[0].pixels
        black = mask[0, ..., 0] == 0
        assert torch.equal(pixels[black], picture[0][black])
        return prompt, judge(planes(pixels), prompt).right

    verdicts = halves(judged, [*enumerate(scenes(0, 100))])
    wrong = [prompt for prompt, is_right in verdicts if not is_right]
    right = len(verdicts) - len(wrong)
    print(f"inpainted subjects right: {right} of 100")
    assert right >= 85, wrong


@pytest.mark.timeout(1500)
def test_a_margin_paints_the_subject_as_well(nano: Model) -> None:
    right = 0
    for number, scene in enumerate(scenes(1, 20)):
        wanted = scenes(2000 + number, 1, background=scene.background, position=scene.position)[0]
        picture, mask = drawn(scene), around(scene)
        result = run(
            nano,
            {"seed": picture, "mask": mask},
            positivePrompt=full_caption(wanted),
            seed=6000 + number,
            strength=1.0,
            maskMargin=32,
            inputs={"seedImage": "seed", "maskImage": "mask"},
        )
        pixels = result.pictures[0].pixels
        black = mask[0, ..., 0] == 0
        assert torch.equal(pixels[black], picture[0][black])
        right += judge(planes(pixels), full_caption(wanted)).right
    print(f"inpainted with a margin, right: {right} of 20")
    assert right >= 14


@pytest.mark.timeout(1500)
def test_outpainting_keeps_the_original_and_goes_on_with_its_background(nano: Model) -> None:
    colours, names = torch.tensor(list(PALETTE.values())) / 255, list(PALETTE)
    added = torch.ones(SIDE + 32, SIDE + 32, dtype=torch.bool)
    added[:SIDE, :SIDE] = False
    going_on = 0
    for number, scene in enumerate(scenes(2, 20)):
        picture = drawn(scene)
        result = run(
            nano,
            {"seed": picture},
            positivePrompt=full_caption(scene),
            seed=7000 + number,
            width=SIDE + 32,
            height=SIDE + 32,
            strength=0.9,
            inputs={"seedImage": "seed"},
            outpaint={"right": 32, "bottom": 32},
        )
        pixels = result.pictures[0].pixels
        assert torch.equal(pixels[:SIDE, :SIDE], picture[0])
        nearest = torch.cdist(pixels[added], colours).argmin(-1)
        going_on += (nearest == names.index(scene.background)).float().mean() > 0.9
    print(f"outpainted backgrounds that go on: {going_on} of 20")
    assert going_on >= 17
