"""SD3LocalInputs: the picture to start from, and where it may change."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.materials import Materials
from ..pipelines.request import ImageInference
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget


class SD3LocalInputs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalInputs",
            display_name="SD3 Inputs",
            category=sockets.CATEGORY,
            description="A seed image for img2img, with a mask for inpainting.",
            search_aliases=["img2img", "image to image", "inpaint", "mask", "denoise", "VAE encode"],
            inputs=[
                io.Image.Input(
                    "seedImage",
                    display_name="seed image",
                    tooltip="Picture to start from. It is scaled to cover width x height, and what is over is cut off "
                    "on both sides; with SD3 Outpaint it keeps its size. Transparency becomes white. A batch gives "
                    "each result its own. Nothing: the picture starts from noise, and strength has no effect.",
                    optional=True,
                ),
                io.Mask.Input(
                    "maskImage",
                    display_name="mask image",
                    tooltip="Where to change the seed image: white changes, black stays exactly as it is, grey changes "
                    "in part. It needs a seed image and must have its proportions. Nothing: all of it may change.",
                    optional=True,
                ),
                widget(ImageInference, "strength"),
                widget(ImageInference, "maskMargin"),
            ],
            outputs=[
                sockets.Inputs.Output(display_name="inputs", tooltip="The seed image and its mask, for SD3 Sampler.")
            ],
        )

    @classmethod
    def execute(cls, strength, maskMargin, seedImage=None, maskImage=None) -> io.NodeOutput:
        given = {} if seedImage is None else {"seedImage": seedImage}
        if maskImage is not None:
            given["maskImage"] = maskImage[..., None]
        pictures = sockets.named(*given.values())
        fields = set_fields(ImageInference, {"strength": strength, "maskMargin": maskMargin})
        if given:
            fields["inputs"] = dict(zip(given, pictures, strict=True))
        return io.NodeOutput(sockets.Spec(fields, Materials(pictures=pictures)))
