"""The embedded model's IP-Adapter, by the figure that its plan asks for."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
from sd3_local.pipelines.materials import Materials

from tests.judge import Said, Verdict, judge
from tests.nano import asset, drawn, halves, open_nano, planes, run, scenes
from tools.nano.world import Scene

CAPTION = "a picture"


@pytest.mark.timeout(3000)
def test_colours_follow_the_guide_and_flee_it_under_a_negative_weight() -> None:
    """The guide shows another subject, elsewhere; both colours must be the guide's."""
    model = open_nano()
    vision = VisionFile(asset("nano-vision"), model.placement)
    adapters = Materials(
        ip_adapters={"nano-reference": IPAdapterFile(asset("nano-reference"), vision, model.placement)}
    )

    def judged(shown: tuple[int, Scene]) -> tuple[bool, bool, int]:
        """Whether both colours are the guide's. Eight times also by chance, without the adapter, and how many there are
        under a negative weight.
        """
        number, scene = shown

        def painted(**adapter: float) -> torch.Tensor:
            item = {"model": "nano-reference", "guideImages": ["guide"], **adapter}
            asked = {"positivePrompt": CAPTION, "seed": 9000 + number, **({"ipAdapters": [item]} if adapter else {})}
            return run(model, {"guide": drawn(scene)}, adapters, **asked).pictures[0].pixels

        def verdict(pixels: torch.Tensor) -> Verdict:
            return judge(planes(pixels), Said(colour=scene.colour, background=scene.background))

        followed = verdict(painted(weight=1.0)).right
        if number >= 8:
            return followed, False, 0
        plain = painted()
        assert torch.equal(painted(weight=0.0), plain)
        away = verdict(painted(weight=-0.5))
        return followed, verdict(plain).right, away.colour + away.background

    outcomes = halves(judged, [*enumerate(scenes(4, 100))])
    followed, by_chance, beside = map(sum, zip(*outcomes, strict=True))
    print(f"both colours of the guide: {followed} of 100; without the adapter {by_chance} of 8")
    print(f"colours of the guide that a negative weight kept: {beside} of 16")
    assert followed >= 80
    assert by_chance <= 2
    assert beside <= 2
