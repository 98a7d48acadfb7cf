"""SD3LocalModel: which Stable Diffusion 3 checkpoint paints."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from ..host import folders
from ..pipelines.errors import Fault, RequestError, show
from ..pipelines.loading import ModelFiles
from . import sockets
from .schema import Schema
from .widgets import advanced, friendly

AUTO = "auto"


class SD3LocalModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..host.memory import DTYPES

        encoder_tip = (
            "A CLIP-L, CLIP-G or T5-XXL file from the folder text_encoders, in any order. It replaces the one in the "
            "model's file. SD3 works with any of the three; each one left out weakens the prompt."
        )
        return Schema(
            node_id="SD3LocalModel",
            display_name="SD3 Model",
            category=sockets.CATEGORY,
            description="Loads Stable Diffusion 3 or 3.5: single files, separate files or a diffusers folder.",
            search_aliases=["load checkpoint", "checkpoint loader", "stable diffusion 3", "load diffusion model"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=folders.models(),
                    display_name="model",
                    tooltip="A file from the folders checkpoints or diffusion_models, a diffusers folder from the "
                    "folder diffusers, or sd3-nano, the tiny model that comes with this pack.",
                ),
                io.Combo.Input(
                    "vae",
                    options=folders.files("vae"),
                    display_name="vae",
                    tooltip="What turns latents into pixels: the model's own autoencoder, or one from the folder vae.",
                ),
                *(
                    advanced(
                        io.Combo.Input(
                            name,
                            options=folders.files("text_encoders"),
                            display_name=friendly(name),
                            tooltip=encoder_tip,
                        )
                    )
                    for name in ("textEncoder1", "textEncoder2", "textEncoder3")
                ),
                advanced(
                    io.Combo.Input(
                        "dtype",
                        options=[AUTO, *DTYPES],
                        display_name="dtype",
                        tooltip="How the transformer's weights are kept. auto: as in the file, where the device can "
                        "compute with that. fp8_e4m3fn halves the memory of fp16 for a little quality.",
                    )
                ),
            ],
            outputs=[
                sockets.Model.Output(
                    display_name="model",
                    tooltip="The checkpoint with its VAE and text encoders, for SD3 Sampler and SD3 Calibrate.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, model=None, vae=None, textEncoder1=None, textEncoder2=None, textEncoder3=None, dtype=None
    ):
        """Changes when a file does, so that a replaced checkpoint is loaded anew under its old name."""
        chosen = _chosen(model, vae, (textEncoder1, textEncoder2, textEncoder3), dtype)
        paths = [path for path in (chosen.model, chosen.vae, *chosen.text_encoders) if path is not None]
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        return [(str(file), *folders.stamp(file)) for file in files]

    @classmethod
    def execute(cls, model, vae, textEncoder1, textEncoder2, textEncoder3, dtype) -> io.NodeOutput:
        from ..host.memory import ComfyPlacement
        from ..pipelines.model import Model

        files = _chosen(model, vae, (textEncoder1, textEncoder2, textEncoder3), dtype)
        return io.NodeOutput(Model(files, folders.tokenizers(), ComfyPlacement(dtype), folders.calibrations()))


def _chosen(model: str, vae: str, text_encoders: Sequence[str], dtype: str) -> ModelFiles:
    """The files of picked names. Raises RequestError for every choice that is none of those offered."""
    from ..host.memory import DTYPES

    faults: list[Fault] = []

    def find(find_path, *arguments):
        try:
            return find_path(*arguments)
        except RequestError as error:
            faults.extend(error.faults)

    files = ModelFiles(
        find(folders.model_path, model),
        find(folders.file_path, vae, "vae", "vae"),
        tuple(
            find(folders.file_path, name, "text_encoders", f"textEncoder{index}")
            for index, name in enumerate(text_encoders, 1)
        ),
    )
    offered = (AUTO, *DTYPES)
    if dtype not in offered:
        told = f"dtype is {show(dtype)}; it must be one of {', '.join(offered)}."
        faults.append(Fault("invalidDtype", told, "dtype", {"allowedValues": offered}))
    if faults:
        raise RequestError.of(faults)
    return files
