"""SD3LocalCalibrate: what an accelerator's errors mean on the user's own checkpoint."""

from __future__ import annotations

import secrets

from comfy_api.latest import io, ui

from ..host import folders
from ..pipelines.calibrate import LEAST_STEPS, PROMPTS, ROWS, calibrate, usual_side
from ..pipelines.request import DEFAULT_GUIDANCE_SCALE, ImageInference
from . import sockets
from .sampler import MAX_SIDE, MAX_STEPS
from .schema import Schema
from .widgets import UNSET_NUMBER, widget


class SD3LocalCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalCalibrate",
            display_name="SD3 Calibrate",
            category=sockets.CATEGORY,
            description="Measures once, in runs that compute every step, what SD3 Accelerator may reuse on this "
            "checkpoint. Later runs of it find the result.",
            search_aliases=["calibration", "TeaCache coefficients", "measure cache", "accelerator threshold"],
            inputs=[
                sockets.Model.Input("model", display_name="model", tooltip="The checkpoint, from SD3 Model."),
                io.Int.Input(
                    "prompts",
                    display_name="prompts",
                    default=len(PROMPTS) // 2,
                    min=ROWS,
                    max=len(PROMPTS),
                    tooltip="How many pictures to measure in, from a list of many kinds that comes with the pack. More "
                    "take longer and give steadier figures.",
                ),
                *(widget(ImageInference, side, max=MAX_SIDE, default=UNSET_NUMBER) for side in ("width", "height")),
                widget(ImageInference, "steps", default=28, min=LEAST_STEPS, max=MAX_STEPS),
                widget(ImageInference, "CFGScale", default=DEFAULT_GUIDANCE_SCALE),
                io.Boolean.Input(
                    "again",
                    display_name="again",
                    default=False,
                    tooltip="On: also a checkpoint that has been calibrated, whose result is replaced at the end.",
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="What was measured, in words.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, again=False, **values) -> str | None:
        """Whether there is a result is looked up in every run; a new one is measured where something was changed."""
        return None if again else secrets.token_hex()

    @classmethod
    def execute(cls, model, prompts, width, height, steps, CFGScale, again) -> io.NodeOutput:
        from ..caching import Settings
        from ..host.progress import ComfyMonitor

        usual = usual_side(model)
        size = tuple(usual if side == UNSET_NUMBER else side for side in (width, height))
        settings = Settings(prompts=PROMPTS[:prompts], sizes=(size,), steps=steps, guidance_scale=_guidance(CFGScale))
        report = str(calibrate(model, settings, folders.calibrations(), ComfyMonitor(model), again=again))
        return io.NodeOutput(report, ui=ui.PreviewText(report))


def _guidance(scale: float) -> float:
    return DEFAULT_GUIDANCE_SCALE if scale == UNSET_NUMBER else scale
