"""SD3LocalFaceFix: faces found and painted again."""

from __future__ import annotations

from comfy_api.latest import io

from ..host import folders
from ..pipelines.materials import Materials
from ..pipelines.request import Ultralytics
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget

AUTO = "auto"

TIPS = {
    "positivePrompt": "Words can be weighted, as in (smiling:1.3).",
    "steps": "From 1 to 100; strength says how many of them are run.",
    "CFGScale": "From 0 to 50; at 1 or less there is no guidance, and a step costs half.",
    "confidence": "From 0 to 1: at 0 all that could be a face counts, at 1 hardly anything does.",
    "maskBlur": "From 0, a hard edge, to 100, to both sides of the edge.",
    "maskPadding": "From 0 to 20, on every side of the found box.",
    "strength": "From 0 to 1; at 0 no face is looked for.",
}


class SD3LocalFaceFix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..host import optional_models

        return Schema(
            node_id="SD3LocalFaceFix",
            display_name="SD3 Face Fix",
            category=sockets.CATEGORY,
            description="Finds faces in the finished pictures and paints each one again at the size that the model "
            "paints best. It needs the package ultralytics.",
            search_aliases=["ADetailer", "face detailer", "face restore", "ultralytics", "YOLO"],
            inputs=[
                _widget("positivePrompt", multiline=True, dynamic_prompts=True),
                _widget("negativePrompt", multiline=True, dynamic_prompts=True),
                _widget("steps"),
                _widget("CFGScale"),
                _widget("strength"),
                _widget("confidence"),
                _widget("maskPadding"),
                _widget("maskBlur"),
                io.Combo.Input(
                    "detector",
                    options=[AUTO, *optional_models.detectors()],
                    display_name="detector",
                    tooltip="What finds the faces: an ultralytics .pt file (YOLOv8 or later) from the folder "
                    "ultralytics/bbox, or nano-face, which knows the faces of sd3-nano only. auto: the first file "
                    "there, nano-face where there is none. Files are read without running anything that is in them.",
                ),
            ],
            outputs=[
                sockets.Ultralytics.Output(
                    display_name="ultralytics", tooltip="How faces are painted again, for SD3 Sampler."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, detector=None, **values):
        """Changes when the file does, so that a replaced detector is read anew under its old name."""
        from ..host import optional_models

        name = _named(detector)
        return (name, *sorted(values.items()), *folders.stamp(optional_models.detector_path(name)))

    @classmethod
    def execute(cls, detector, **values) -> io.NodeOutput:
        from ..host import optional_models
        from ..pipelines.faces import open_detector

        name = _named(detector)
        opened = open_detector(optional_models.detector_path(name), optional_models.device(), name)
        return io.NodeOutput(sockets.Spec({"ultralytics": set_fields(Ultralytics, values)}, Materials(detector=opened)))


def _named(detector: object) -> object:
    """The detector that "auto" stands for: the first of those offered."""
    from ..host import optional_models

    return optional_models.detectors()[0] if detector == AUTO else detector


def _widget(name: str, **options) -> io.Input:
    made = widget(Ultralytics, name, **options)
    made.tooltip = " ".join(filter(None, (made.tooltip, TIPS.get(name))))
    return made
