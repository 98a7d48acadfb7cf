"""SD3LocalOutpaint: how far the seed image grows."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.request import Outpaint
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget

SIDES = ("top", "right", "bottom", "left")
MAX_PIXELS = 16384
"""Where the API sets no limit a widget still needs one."""


class SD3LocalOutpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalOutpaint",
            display_name="SD3 Outpaint",
            category=sockets.CATEGORY,
            description="Paints on beyond the borders of the seed image. The sampler's width and height must be the "
            "seed image's plus what is added; a strength of 0.85 or more paints more than stretched colours.",
            search_aliases=["pad image for outpainting", "uncrop", "extend image", "expand canvas"],
            inputs=[widget(Outpaint, side, default=0, max=MAX_PIXELS) for side in SIDES],
            outputs=[
                sockets.Outpaint.Output(display_name="outpaint", tooltip="What is added on each side, for SD3 Sampler.")
            ],
        )

    @classmethod
    def execute(cls, top: int, right: int, bottom: int, left: int) -> io.NodeOutput:
        values = dict(zip(SIDES, (top, right, bottom, left), strict=True))
        return io.NodeOutput(sockets.Spec({"outpaint": set_fields(Outpaint, values)}))
