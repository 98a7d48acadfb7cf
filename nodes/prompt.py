"""SD3LocalPrompt: what the picture should show, and what not."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.request import ImageInference
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget


class SD3LocalPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalPrompt",
            display_name="SD3 Prompt",
            category=sockets.CATEGORY,
            description="The texts that guide a picture. Words can be weighted, as in (red:1.3).",
            search_aliases=["CLIP text encode", "positive prompt", "negative prompt", "text encoder", "conditioning"],
            inputs=[
                widget(ImageInference, "positivePrompt", multiline=True, dynamic_prompts=True),
                widget(ImageInference, "negativePrompt", multiline=True, dynamic_prompts=True),
                widget(ImageInference, "clipSkip"),
            ],
            outputs=[sockets.Prompt.Output(display_name="prompt", tooltip="The texts, for SD3 Sampler.")],
        )

    @classmethod
    def execute(cls, positivePrompt: str, negativePrompt: str, clipSkip: int) -> io.NodeOutput:
        values = {"positivePrompt": positivePrompt, "negativePrompt": negativePrompt, "clipSkip": clipSkip}
        return io.NodeOutput(sockets.Spec(set_fields(ImageInference, values)))
