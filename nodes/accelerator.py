"""SD3LocalAccelerator: work of earlier steps, reused where the picture hardly shows it."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.request import AcceleratorOptions
from . import sockets
from .sampler import MAX_STEPS
from .schema import Schema
from .widgets import set_fields, widget

# Each technique before its own setting, then what bounds them all.
TIPS = {
    "fbCache": "A reused step costs one block of the model. Only one of fbCache, teaCache and dbCache can be on.",
    "fbCacheThreshold": "From 0 to 1: at 1 nothing is reused, at 0 whatever the window and the maximum allow. In other "
    "packs a threshold often goes the other way.",
    "teaCache": "A reused step costs next to nothing. Only one of fbCache, teaCache and dbCache can be on.",
    "teaCacheDistance": "From 0 to 1: at 0 nothing is reused, at 1 whatever the window and the maximum allow.",
    "dbCache": "A reused step costs the first block and the last one's feed-forward layer. Only one of fbCache, "
    "teaCache and dbCache can be on.",
    "dbCacheThreshold": "From 0 to 1: at 1 nothing is reused, at 0 whatever the window and the maximum allow. In other "
    "packs a threshold often goes the other way.",
    "dbCacheSkipInterval": "At most so many steps in a row are reused, and never more than cacheMaxConsecutiveSteps: "
    "with 5 here and 3 there, 3. In other packs a larger interval often reuses less.",
    "cacheMaxConsecutiveSteps": "From 1 to 5. A sampler that evaluates a step twice still counts it once.",
    "cacheStartStep": "The first step that is run is always computed. Either steps or percent.",
    "cacheEndStep": "The last step that is run is always computed. Either steps or percent.",
    "cacheStartStepPercentage": "Of the steps that are run: with a strength of 0.5, half of them. From 0 to 99.",
    "cacheEndStepPercentage": "Of the steps that are run. From 1 to 100.",
}
WITHOUT_LIMIT = ("dbCacheSkipInterval", "cacheStartStep", "cacheEndStep")


class SD3LocalAccelerator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalAccelerator",
            display_name="SD3 Accelerator",
            category=sockets.CATEGORY,
            description="Makes sampling faster: steps in which the model would hardly say anything new are not "
            "computed, but foretold from earlier ones. The sampler's report says which.",
            search_aliases=["TeaCache", "first block cache", "FBCache", "WaveSpeed", "DBCache", "cache", "speed up"],
            inputs=widgets(),
            outputs=[
                sockets.Accelerator.Output(
                    display_name="acceleratorOptions", tooltip="What may be reused, for SD3 Sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(sockets.Spec({"acceleratorOptions": set_fields(AcceleratorOptions, values)}))


def widgets() -> list[io.Input]:
    """The twelve options."""
    return [_widget(name) for name in TIPS]


def _widget(name: str) -> io.Input:
    made = widget(AcceleratorOptions, name, **({"max": MAX_STEPS} if name in WITHOUT_LIMIT else {}))
    made.tooltip = f"{made.tooltip} {TIPS[name]}"
    return made
