"""The judge is itself judged: on pictures whose truth is known because they were drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.judge import judge, prompts
from tools.nano.captions import full_caption, said
from tools.nano.world import PALETTE, POSITIONS, SUBJECTS, Scene, draw_scene, sample_scene


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scenes(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng([5, seed])
    return [sample_scene(rng) for _ in range(count)]


def picture(scene: Scene, noise: float = 0.0, side: int = 128) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_scene(scene, side, side)
    drawn = (drawn + noise * torch.randn(drawn.shape, generator=generator)).clamp(0, 1)
    return (drawn * 255).round().byte().permute(1, 2, 0).numpy()


def other(value: str, values) -> str:
    """The value after `value`: a wrong one, the same in every run."""
    values = list(values)
    return values[(values.index(value) + 1) % len(values)]


def test_drawn_scenes_are_right():
    verdicts = [judge(picture(scene), full_caption(scene)) for scene in scenes(120, 0)]
    assert sum(verdict.right for verdict in verdicts) >= 119


@pytest.mark.parametrize("side", [96, 192])
def test_other_sizes_are_right(side: int):
    verdicts = [judge(picture(scene, side=side), scene) for scene in scenes(24, 1)]
    assert sum(verdict.right for verdict in verdicts) >= 23


def test_a_little_noise_does_not_matter():
    verdicts = [judge(picture(scene, noise=0.02), scene) for scene in scenes(40, 2)]
    assert sum(verdict.right for verdict in verdicts) >= 39


@pytest.mark.parametrize("attribute", ["subject", "colour", "background", "position"])
def test_each_attribute_can_be_wrong_alone(attribute: str):
    values = {"subject": SUBJECTS, "colour": PALETTE, "background": PALETTE, "position": POSITIONS}[attribute]
    wrong = 0
    for scene in scenes(24, 3):
        asked = replace(scene, **{attribute: other(getattr(scene, attribute), values)})
        verdict = judge(picture(scene), asked)
        wrong += not getattr(verdict, attribute)
        kept = {"subject", "colour", "background", "position"} - {attribute}
        assert all(getattr(verdict, name) for name in kept)
        assert not verdict.right
    assert wrong == 24


def test_a_plain_picture_has_no_subject():
    flat = np.full((128, 128, 3), PALETTE["blue"], np.uint8)
    verdict = judge(flat, "a red circle on the left, blue background")
    assert verdict.background and not (verdict.subject or verdict.colour or verdict.position)


def test_what_a_caption_leaves_free_cannot_be_wrong():
    scene = Scene("ring", "green", "black", "on the right", 0.4, 0.0, 0.35)
    assert judge(picture(scene), "a ring").right
    assert judge(picture(scene), said("{background} background", scene)).right
    assert not judge(picture(scene), "a cross").right


def test_tensors_and_arrays_are_judged_alike():
    scene = scenes(1, 4)[0]
    assert judge(draw_scene(scene), scene) == judge(
        (draw_scene(scene) * 255).round().byte().permute(1, 2, 0).numpy(), scene
    )


def test_prompts_are_full_captions_and_follow_the_seed():
    first = list(prompts(20, 0))
    assert first == list(prompts(20, 0))
    assert first != list(prompts(20, 1))
    assert all(" on the " in prompt or " in the center" in prompt for prompt in first)
