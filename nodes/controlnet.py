"""SD3LocalControlNet: a guide image that leads the picture's structure."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..host import folders
from ..pipelines.materials import Materials
from ..pipelines.request import ControlNet
from . import sockets
from .sampler import MAX_STEPS
from .schema import Schema
from .widgets import set_fields, widget

if TYPE_CHECKING:
    from ..pipelines.controlnet import ControlNetFile

FOLDER = "controlnet"

TIPS = {
    "weight": "From -4 to 4.",
    "controlMode": "balanced: the net acts on the prompt and on the negative prompt. controlnet: on the prompt alone, "
    "so that guidance enlarges its effect; the same as balanced without guidance. prompt: each of its layers weaker by "
    "a factor of 0.825 than the next one, so that it is weakest where the layout is made.",
    "startStep": "Either steps or percent.",
    "endStep": "Either steps or percent.",
    "startStepPercentage": "Of the steps that are run: with a strength of 0.5, half of them. From 0 to 99.",
    "endStepPercentage": "Of the steps that are run. From 1 to 100.",
}


class SD3LocalControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalControlNet",
            display_name="SD3 ControlNet",
            category=sockets.CATEGORY,
            description="A picture of edges, depth, a pose or a blurred one leads the structure of the result. Several "
            "in a chain act together.",
            search_aliases=["apply ControlNet", "canny", "depth", "openpose", "blur", "tile"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=folders.add_ons(FOLDER),
                    display_name="model",
                    tooltip="A ControlNet for Stable Diffusion 3 or 3.5 from the folder controlnet; it must be made "
                    "for the model. nano-edges is the one that comes with this pack, for sd3-nano.",
                ),
                io.Image.Input(
                    "guideImage",
                    display_name="guide image",
                    tooltip="What the net was trained to see, such as an edge drawing from ComfyUI's Canny node. It is "
                    "scaled to cover the picture, and what is over is cut off on both sides. A batch gives each result "
                    "its own.",
                ),
                _widget("weight"),
                _widget("controlMode"),
                _widget("startStep", max=MAX_STEPS),
                _widget("endStep", max=MAX_STEPS),
                _widget("startStepPercentage"),
                _widget("endStepPercentage"),
                sockets.ControlNet.Input(
                    "controlNet",
                    display_name="control net",
                    tooltip="Earlier ControlNets, from another SD3 ControlNet: all of them act.",
                    optional=True,
                ),
            ],
            outputs=[
                sockets.ControlNet.Output(
                    display_name="control net",
                    tooltip="This ControlNet and the earlier ones, for SD3 Sampler or the next SD3 ControlNet.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, **_values):
        """Changes when the file does, so that a replaced net is read anew under its old name."""
        return folders.stamp(folders.add_on_path(model, FOLDER, "model"))

    @classmethod
    def execute(cls, model, guideImage, controlNet=None, **values) -> io.NodeOutput:
        from ..pipelines.loading.faults import within

        earlier = sockets.Spec({}) if controlNet is None else controlNet
        with within(f"controlNet[{len(earlier.fields.get('controlNet', ()))}]"):
            path = folders.add_on_path(model, FOLDER, "model")
            opened = _opened(path, folders.stamp(path))
        pictures = sockets.named(guideImage)
        item = {"model": model, "guideImage": next(iter(pictures)), **set_fields(ControlNet, values)}
        materials = Materials(pictures=pictures, control_nets={model: opened})
        return io.NodeOutput(earlier.followed_by("controlNet", item, materials))


def _widget(name: str, **options) -> io.Input:
    made = widget(ControlNet, name, **options)
    made.tooltip = f"{made.tooltip} {TIPS[name]}"
    return made


# Another weight runs the node again, but must not read its file again.
@lru_cache(maxsize=2)
def _opened(path: Path, stamp: tuple[int, int]) -> ControlNetFile:
    from ..host.memory import ComfyPlacement
    from ..pipelines.controlnet import ControlNetFile

    return ControlNetFile(path, ComfyPlacement("auto"))
