"""The embedded model through the whole engine, and what the judge says of its pictures."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from sd3_local.pipelines.generate import Picture, generate
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.engines import open_model, request
from tests.judge import judge, prompts
from tests.nano import halves
from tools.pack import ROOT

PROMPTS = 200
ATTRIBUTES = ("subject", "colour", "background", "position", "right")


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_model(ROOT / "assets" / "nano" / "sd3-nano.safetensors")


def as_image(picture: Picture) -> np.ndarray:
    """The picture as a PNG of it would be."""
    return (picture.pixels * 255).round().to(torch.uint8).numpy()


def test_its_file_is_a_small_sd3_checkpoint(nano: Model) -> None:
    plan = nano.plan
    assert plan.name == "SD3 (8 blocks, width 128)"
    assert plan.max_side == 1536
    assert all((plan.transformer, plan.vae, plan.clip_l, plan.clip_g))
    assert plan.t5 is None
    assert all(source.dtype == torch.float16 for source in (plan.transformer, plan.vae, plan.clip_l, plan.clip_g))
    folder = ROOT / "assets" / "nano"
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 40 * 2**20


@pytest.mark.timeout(1500)
def test_nine_of_ten_pictures_are_what_the_prompt_says(nano: Model) -> None:
    def judged(drawn: tuple[int, str]) -> list[str]:
        seed, prompt = drawn
        asked = request(positivePrompt=prompt, width=128, height=128, steps=28, CFGScale=5.0, seed=seed)
        verdict = judge(as_image(generate(asked, nano, Unwatched()).pictures[0]), prompt)
        return [name for name in ATTRIBUTES if getattr(verdict, name)]

    asked = [*enumerate(prompts(PROMPTS), start=1000)]
    verdicts = halves(judged, asked)
    counts = Counter(chain.from_iterable(verdicts))
    wrong = [
        f"{prompt} (seed {seed})" for (seed, prompt), right in zip(asked, verdicts, strict=True) if "right" not in right
    ]
    print(f"right of {PROMPTS}: " + ", ".join(f"{name} {counts[name]}" for name in ATTRIBUTES))
    assert counts["right"] >= 0.9 * PROMPTS, wrong


def test_a_negative_prompt_is_kept_away_from(nano: Model) -> None:
    """Of pictures with a free subject colour, fewer are red when the negative prompt says red."""

    def red(**fields: object) -> int:
        asked = request(
            positivePrompt="a circle in the center, white background",
            width=128,
            height=128,
            steps=14,
            numberResults=20,
            **fields,
        )
        pictures = generate(asked, nano, Unwatched()).pictures
        return sum(
            judge(as_image(picture), "a red circle in the center, white background").colour for picture in pictures
        )

    assert red(negativePrompt="red") <= red()
    assert red(negativePrompt="red") <= 1
