"""SD3LocalSampler: the run itself."""

from __future__ import annotations

import secrets
import uuid

from comfy_api.latest import io, ui

from ..pipelines.materials import Materials
from ..pipelines.request import DEFAULT_GUIDANCE_SCALE, ImageInference
from ..pipelines.scheduler_names import DEFAULT_SCHEDULER
from . import sockets
from .schema import Schema
from .widgets import UNSET_NUMBER, friendly, set_fields, widget

# Where the API sets no limit a widget still needs one; what the model can't do is refused when it is known.
MAX_SIDE = 16384
MAX_STEPS = 10_000

FIELDS = ("width", "height", "seed", "steps", "scheduler", "CFGScale", "numberResults")


FEATURES = {
    "inputs": (sockets.Inputs, "A seed image and its mask, from SD3 Inputs. Nothing: the picture starts from noise."),
    "outpaint": (sockets.Outpaint, "How far the seed image grows, from SD3 Outpaint."),
    "lora": (sockets.Lora, "LoRAs, from one or more SD3 LoRA in a chain."),
    "controlNet": (sockets.ControlNet, "ControlNets, from one or more SD3 ControlNet in a chain."),
    "ipAdapters": (sockets.IPAdapter, "IP-Adapters, from one or more SD3 IP-Adapter in a chain."),
    "ultralytics": (sockets.Ultralytics, "Faces are found and painted again, as SD3 Face Fix says."),
    "safety": (sockets.Safety, "The check of the results, from SD3 Safety."),
    "acceleratorOptions": (sockets.Accelerator, "Steps that need not be computed are not, as SD3 Accelerator says."),
}


class SD3LocalSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalSampler",
            display_name="SD3 Sampler",
            category=sockets.CATEGORY,
            description="Samples latents and decodes them. Result i, counted from 0, has the seed seed + i.",
            search_aliases=["KSampler", "text to image", "txt2img", "stable diffusion 3", "generate image"],
            inputs=[
                sockets.Model.Input("model", display_name="model", tooltip="The checkpoint, from SD3 Model."),
                sockets.Prompt.Input(
                    "prompt", display_name="prompt", tooltip="What to show and what not, from SD3 Prompt."
                ),
                widget(ImageInference, "width", max=MAX_SIDE),
                widget(ImageInference, "height", max=MAX_SIDE),
                widget(ImageInference, "seed", default=0, control_after_generate=True),
                widget(ImageInference, "steps", max=MAX_STEPS),
                widget(ImageInference, "scheduler", default=DEFAULT_SCHEDULER),
                widget(ImageInference, "CFGScale", default=DEFAULT_GUIDANCE_SCALE),
                widget(ImageInference, "numberResults"),
                *(
                    socket.Input(name, display_name=friendly(name), tooltip=tooltip, optional=True)
                    for name, (socket, tooltip) in FEATURES.items()
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The results, as a batch."),
                io.Latent.Output(display_name="latent", tooltip="The same results before decoding."),
                sockets.Result.Output(
                    display_name="result", tooltip="The results with their seeds and flags, for SD3 Delivery."
                ),
                io.String.Output(display_name="report", tooltip="What the run did and how long it took, in words."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, seed=None, **values) -> str | None:
        """Without a seed every run is a new one."""
        return secrets.token_hex() if seed == UNSET_NUMBER else None

    @classmethod
    def execute(
        cls, model, prompt, width, height, seed, steps, scheduler, CFGScale, numberResults, **features
    ) -> io.NodeOutput:
        import torch

        from ..host.progress import ComfyMonitor
        from ..pipelines.generate import generate
        from ..pipelines.parse import parse
        from ..pipelines.summary import summary

        specs = [prompt, *(spec for spec in features.values() if spec is not None)]
        values = (width, height, seed, steps, scheduler, CFGScale, numberResults)
        request = parse(
            {
                # A run in the graph is nobody's task yet; the two names are what makes it a whole request.
                "taskType": "imageInference",
                "taskUUID": str(uuid.uuid4()),
                "model": model.plan.name,
                **{name: value for spec in specs for name, value in spec.fields.items()},
                **set_fields(ImageInference, dict(zip(FIELDS, values, strict=True))),
            }
        )
        monitor = ComfyMonitor(model, request.number_results)
        result = generate(request, model, monitor, Materials.merged(spec.materials for spec in specs))
        images = torch.stack([picture.pixels for picture in result.pictures])
        latent = torch.stack([picture.latent for picture in result.pictures])
        # Not among the node's own pictures: the live preview would hide them, and the last preview is the picture.
        files = ui.PreviewImage(list(result.previews), cls=cls).values if result.previews else []
        drawings = [
            {**file, "width": drawing.shape[1], "height": drawing.shape[0]}
            for file, drawing in zip(files, result.previews, strict=True)
        ]
        told = {"sd3local_summary": [{**summary(result), "drawings": drawings}]}
        return io.NodeOutput(images, {"samples": latent}, result, str(result.report), ui=told)
