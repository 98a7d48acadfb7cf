"""SD3LocalCompare: two pictures over each other, and how far they are apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from . import sockets
from .schema import Schema

if TYPE_CHECKING:
    from ..pipelines.difference import Difference


class SD3LocalCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalCompare",
            display_name="SD3 Compare",
            category=sockets.CATEGORY,
            description="Two pictures over each other with a slider between them, and how far they are apart: such as "
            "one sampled with the accelerator and one without.",
            search_aliases=["image comparer", "image compare", "before after", "slider", "difference", "PSNR"],
            inputs=[
                io.Image.Input(
                    "imagesA", display_name="images A", tooltip="What is shown to the left of the slider, as a batch."
                ),
                io.Image.Input(
                    "imagesB",
                    display_name="images B",
                    tooltip="What is shown to the right of the slider, of the same size. Of batches of different "
                    "length as many are compared as the shorter has.",
                ),
                io.String.Input(
                    "labelA",
                    display_name="label A",
                    default="",
                    tooltip="What images A are called. Nothing: the accelerator that result A tells of, else A.",
                ),
                io.String.Input(
                    "labelB",
                    display_name="label B",
                    default="",
                    tooltip="What images B are called. Nothing: the accelerator that result B tells of, else B.",
                ),
                sockets.Result.Input(
                    "resultA",
                    display_name="result A",
                    tooltip="The result of the SD3 Sampler that made images A: then its time and steps are compared.",
                    optional=True,
                ),
                sockets.Result.Input(
                    "resultB",
                    display_name="result B",
                    tooltip="The result of the SD3 Sampler that made images B: then its time and steps are compared.",
                    optional=True,
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="How far the pictures are apart, and what each run took, in words."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, imagesA, imagesB, labelA, labelB, resultA=None, resultB=None) -> io.NodeOutput:
        from ..pipelines.difference import differences
        from ..pipelines.inputs import opaque

        apart = differences(imagesA, imagesB)
        sides = [
            _side(label.strip() or _label(result, letter), len(images), result)
            for label, letter, images, result in (
                (labelA, "A", imagesA, resultA),
                (labelB, "B", imagesB, resultB),
            )
        ]
        shown = [
            ui.PreviewImage(opaque(images[: len(apart)]), cls=cls).as_dict()["images"] for images in (imagesA, imagesB)
        ]
        pairs = [{"a": a, "b": b, **_numbers(difference)} for a, b, difference in zip(*shown, apart, strict=True)]
        size = {"width": imagesA.shape[2], "height": imagesA.shape[1]}
        told = {**size, "a": sides[0], "b": sides[1], "pairs": pairs}
        return io.NodeOutput(_report(sides, apart), ui={"sd3local_compare": [told]})


def _label(result, letter: str) -> str:
    from ..pipelines.summary import technique

    return letter if result is None else technique(result) or "without accelerator"


def _side(label: str, count: int, result) -> dict[str, Any]:
    """What the editor is told of one batch and, where it is known, of the run that made it."""
    from ..pipelines.summary import summary

    told = {} if result is None else summary(result)
    run = {name: told[name] for name in ("steps", "reused", "seconds") if name in told}
    return {"label": label, "count": count, **run}


def _numbers(difference: Difference) -> dict[str, float | None]:
    """As JSON types, which have no infinity: equal pictures have no PSNR."""
    psnr = difference.psnr if math.isfinite(difference.psnr) else None
    return {"psnr": psnr, "mean": difference.mean, "largest": difference.largest}


def _report(sides: list[dict[str, Any]], apart: list[Difference]) -> str:
    a, b = sides
    lines = [f"{a['label']} and {b['label']}"]
    if a["count"] != b["count"]:
        lines.append(f"{a['count']} and {b['count']} pictures, so the first {len(apart)} are compared")
    for number, difference in enumerate(apart, 1):
        told = "equal" if math.isinf(difference.psnr) else f"PSNR {difference.psnr:.1f} dB"
        lines.append(
            f"pair {number}: {told}, differing by {255 * difference.mean:.2f} of 255 on average and "
            f"{255 * difference.largest:.0f} at most"
        )
    lines += [
        f"{side['label']}: {side['seconds']:.2f} s, {side['steps']} steps, {side['reused']} of them reused"
        for side in sides
        if "seconds" in side
    ]
    if all("seconds" in side for side in sides) and b["seconds"]:
        lines.append(f"{b['label']} is {a['seconds'] / b['seconds']:.2f} times as fast")
    return "\n".join(lines)
