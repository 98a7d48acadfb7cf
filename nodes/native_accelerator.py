"""SD3LocalNativeAccelerator: the same caches for a model that ComfyUI itself samples."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.request import AcceleratorOptions
from . import sockets
from .accelerator import widgets
from .schema import Schema
from .widgets import set_fields


class SD3LocalNativeAccelerator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalNativeAccelerator",
            display_name="SD3 Native Accelerator",
            category=sockets.CATEGORY,
            description="Makes ComfyUI's own sampling of SD3 and SD3.5 faster: steps in which the model would hardly "
            "say anything new are not computed, but foretold from earlier ones. Says after each run which.",
            search_aliases=["TeaCache", "first block cache", "FBCache", "WaveSpeed", "DBCache", "cache", "speed up"],
            inputs=[
                io.Model.Input(
                    "model", display_name="model", tooltip="SD3 or SD3.5, as Load Checkpoint and KSampler know it."
                ),
                *widgets(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The same model, sampled faster, for KSampler and its like."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, **values) -> io.NodeOutput:
        from ..host.native_cache import accelerated
        from ..pipelines.parse import parse_part

        options = parse_part(AcceleratorOptions, set_fields(AcceleratorOptions, values))
        return io.NodeOutput(accelerated(model, options, cls.hidden.unique_id))
