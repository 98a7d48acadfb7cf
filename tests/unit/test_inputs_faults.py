"""Pictures that can't be started from, each with one clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sd3_local.pipelines.inputs import check_inputs, starts
from sd3_local.pipelines.materials import Materials

from tests.engines import request


def faults(seed: torch.Tensor, mask: torch.Tensor | None = None, **fields: Any) -> list[tuple[str, str, str]]:
    names = {"seedImage": "seed", **({} if mask is None else {"maskImage": "mask"})}
    pictures = {"seed": seed, **({} if mask is None else {"mask": mask})}
    asked = request(**{"width": 96, "height": 64, **fields, "inputs": names})
    return [(fault.code, fault.parameter, fault.message) for fault in check_inputs(asked, Materials(pictures=pictures))]


def plain(height: int = 64, width: int = 96, batch: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.full((batch, height, width, channels), 0.5)


def test_what_fits_has_no_faults() -> None:
    assert faults(plain()) == []
    assert faults(plain(33, 500, channels=4)) == []
    assert faults(plain(), plain(channels=1)) == []
    # A mask of the seed image's proportions at another scale.
    assert faults(plain(640, 960), plain(64, 96, channels=1)) == []
    assert faults(plain(batch=3), numberResults=3) == []


@pytest.mark.parametrize(
    ("seed", "mask", "fields", "code", "parameter", "told"),
    [
        (plain(1, 1), None, {}, "invalidSeedImage", "inputs.seedImage", "1 x 1 pixels; it must have at least 16"),
        (plain(channels=2), None, {}, "invalidSeedImage", "inputs.seedImage", "1, 3 or 4 channels"),
        (torch.zeros(64, 96, 3), None, {}, "invalidSeedImage", "inputs.seedImage", "shape [64, 96, 3]"),
        (torch.zeros(0, 64, 96, 3), None, {}, "invalidSeedImage", "inputs.seedImage", "shape [0, 64, 96, 3]"),
        (plain() * float("nan"), None, {}, "invalidSeedImage", "inputs.seedImage", "not numbers"),
        (plain(batch=2), None, {"numberResults": 3}, "invalidSeedImage", "inputs.seedImage", "batch of 2 pictures"),
        (plain(), plain(8, 96), {}, "invalidMaskImage", "inputs.maskImage", "96 x 8 pixels; it must have at least 16"),
        (plain(), plain(96, 64), {}, "invalidMaskImage", "inputs.maskImage", "is 64 x 96 pixels, but inputs.seedImage"),
        (plain(), plain(64, 64) * 0, {}, "invalidMaskImage", "inputs.maskImage", "Load Image"),
        (plain(), None, {"outpaint": {"left": 32}}, "invalidWidth", "width", "set width to 128"),
        (plain(), None, {"outpaint": {"top": 16}}, "invalidHeight", "height", "set height to 80"),
        (plain(60), None, {"outpaint": {"top": 10}}, "invalidHeight", "height", "add 10 on one of the two sides and"),
        (plain(), None, {"outpaint": {"left": 0}}, "invalidOutpaint", "outpaint", "extends no side"),
        (plain(), None, {"outpaint": {}}, "invalidOutpaint", "outpaint", "extends no side"),
    ],
)
def test_each_has_one_error_that_says_what_to_do(seed, mask, fields, code, parameter, told) -> None:
    found = faults(seed, mask, **fields)
    assert [fault[:2] for fault in found] == [(code, parameter)]
    assert told in found[0][2]


def test_several_faults_are_told_together() -> None:
    found = faults(plain(8, 8), plain(2, 2), width=64)
    assert [fault[1] for fault in found] == ["inputs.seedImage", "inputs.maskImage"]
    found = faults(plain(), outpaint={"left": 8, "top": 8})
    assert [fault[1] for fault in found] == ["width", "height"]


def test_the_numbers_that_the_outpaint_error_prints_are_accepted() -> None:
    assert faults(plain(), outpaint={"left": 32}, width=128) == []
    assert faults(plain(60), outpaint={"top": 20}, height=80) == []


def test_an_outpainted_canvas_draws_the_rim_outwards() -> None:
    seed = torch.rand(1, 64, 96, 3)
    asked = request(width=128, height=80, inputs={"seedImage": "seed"}, outpaint={"right": 32, "top": 16})
    start = starts(asked, Materials(pictures={"seed": seed}), None, 1024)[0]
    assert torch.equal(start.picture[16:, :96], seed[0])
    assert torch.equal(start.picture[0, :96], seed[0, 0])
    assert torch.equal(start.picture[16:, -1], seed[0, :, -1])
    assert start.mask[16:, :96].max() == 0 and start.mask[:16].min() == start.mask[:, 96:].min() == 1
