"""The embedded model's ControlNet, by the figure that its plan asks for."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.controlnet import ControlNetFile
from sd3_local.pipelines.materials import Materials

from tests.nano import asset, halves, open_nano, planes, run, scenes
from tools.nano.captions import fill
from tools.nano.drawings import draw_edges
from tools.nano.measure_addons import UNPLACED, subject_mask
from tools.nano.world import Scene, draw_mask


@pytest.mark.timeout(1500)
def test_subjects_fill_the_outline_that_they_are_shown() -> None:
    model = open_nano()
    nets = Materials(control_nets={"nano-edges": ControlNetFile(asset("nano-edges"), model.placement)})

    def judged(shown: tuple[int, Scene]) -> tuple[bool, bool]:
        """Whether the outline is filled, and by chance without the net, which is tried ten times."""
        number, scene = shown
        hint = draw_edges(scene).movedim(0, -1)[None]
        asked = {"positivePrompt": fill(UNPLACED, scene), "seed": 8000 + number}
        outline = draw_mask(scene) > 0.5

        def iou(pixels: torch.Tensor) -> float:
            seen = subject_mask(planes(pixels))
            return float((seen & outline).sum() / (seen | outline).sum().clamp(min=1))

        net = {"model": "nano-edges", "guideImage": "hint"}
        result = run(model, {"hint": hint}, nets, controlNet=[net], **asked)
        filled = iou(result.pictures[0].pixels) >= 0.7
        if number >= 10:
            return filled, False
        off = run(model, {"hint": hint}, nets, controlNet=[{**net, "weight": 0.0}], **asked)
        plain = run(model, **asked)
        assert torch.equal(off.pictures[0].pixels, plain.pictures[0].pixels)
        return filled, iou(plain.pictures[0].pixels) >= 0.7

    filled, without = map(sum, zip(*halves(judged, [*enumerate(scenes(3, 100))]), strict=True))
    print(f"outlines filled: {filled} of 100; without the net {without} of 10")
    assert filled >= 90
    assert without <= 4
