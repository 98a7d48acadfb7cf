"""SD3LocalLora: a LoRA, one after others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..host import folders
from ..pipelines.errors import RequestError, show
from ..pipelines.materials import Materials
from ..pipelines.request import Lora
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget

if TYPE_CHECKING:
    from ..pipelines.lora import LoraFile

FOLDER = "loras"
NONE = "none"
"""The choice that adds no LoRA of the node's own to those of a stack."""


class SD3LocalLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalLora",
            display_name="SD3 LoRA",
            category=sockets.CATEGORY,
            description="A LoRA for the transformer, the text encoders or both. Several in a chain add up.",
            search_aliases=["load LoRA", "LoRA loader", "LoRA stack"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*folders.add_ons(FOLDER), NONE],
                    display_name="model",
                    tooltip="A LoRA for Stable Diffusion 3 or 3.5 from the folder loras, as any trainer writes it; it "
                    "must be made for the model. nano-stripes is the one that comes with this pack, for sd3-nano. "
                    "none: only what comes in by lora and lora stack.",
                ),
                _widget(
                    "weight",
                    "From -4 to 4; it holds for the transformer and for the text encoders.",
                ),
                _widget(
                    "transformer",
                    "high: the first half of the steps that are run, where layout is made. low: the second half, where "
                    "detail is. What a LoRA changes in the text encoders acts throughout.",
                ),
                sockets.Lora.Input(
                    "lora",
                    display_name="lora",
                    tooltip="Earlier LoRAs, from another SD3 LoRA: all of them act.",
                    optional=True,
                ),
                sockets.LoraStack.Input(
                    "loraStack",
                    display_name="lora stack",
                    tooltip="LoRAs of another pack's stacker nodes (LORA_STACK), with their own weights for "
                    "transformer and text encoders.",
                    optional=True,
                ),
            ],
            outputs=[
                sockets.Lora.Output(
                    display_name="lora", tooltip="This LoRA and the earlier ones, for SD3 Sampler or the next SD3 LoRA."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, **_values):
        """Changes when the file does, so that a replaced LoRA is read anew under its old name."""
        if model == NONE:
            return None
        return folders.stamp(folders.add_on_path(model, FOLDER, "model"))

    @classmethod
    def execute(cls, model, weight, transformer, lora=None, loraStack=None) -> io.NodeOutput:
        spec = sockets.Spec({}) if lora is None else lora
        for name, in_transformer, in_text in _stacked(loraStack):
            # A stack has no stages: its LoRAs act throughout.
            spec = _added(spec, name, {"weight": in_transformer}, None if in_text == in_transformer else in_text)
        if model != NONE:
            spec = _added(spec, model, set_fields(Lora, {"weight": weight, "transformer": transformer}))
        return io.NodeOutput(spec)


def _stacked(stack: object) -> Iterator[tuple[str, float, float]]:
    """File name, weight in the transformer and weight in the text encoders of each item of a stack.

    That is the form of the stackers of Comfyroll, Efficiency Nodes and LoRA Manager. A name may have the system's own
    separators or be a whole path, and "None" is an empty place.
    """
    for number, item in enumerate(stack if isinstance(stack, (list, tuple)) else [] if stack is None else [stack]):
        if isinstance(item, (list, tuple)) and len(item) == 3 and isinstance(item[0], str):
            name, *weights = item
            if all(isinstance(weight, (int, float)) and math.isfinite(weight) for weight in weights):
                if name != "None":
                    yield _listed(name), float(weights[0]), float(weights[1])
                continue
        told = (
            f"loraStack[{number}] is {show(item)}; an item of a LORA_STACK is a file name, a weight for the model and "
            "one for the text encoders."
        )
        raise RequestError("invalidLoraStack", told, f"loraStack[{number}]")


def _listed(name: str) -> str:
    """What the folder calls the file that a stack calls `name`; `name` where it has none."""
    wanted = name.replace("\\", "/")
    for offered in folders.add_ons(FOLDER):
        path = str(folders.add_on_path(offered, FOLDER, "model"))
        if wanted in (offered.replace("\\", "/"), path.replace("\\", "/")):
            return offered
    return name


def _added(spec: sockets.Spec, model: str, values: dict, text_weight: float | None = None) -> sockets.Spec:
    """The LoRAs of `spec` and one more."""
    number, name = len(spec.fields.get("lora", ())), model
    opened = _opened(model, f"lora[{number}]", text_weight)
    if (known := spec.materials.loras.get(name)) is not None and known.text_weight != text_weight:
        # The request has one weight for each name, so the same file with another one in the text encoders needs a name.
        name = f"{model} ({number})"
    return spec.followed_by("lora", {"model": name, **values}, Materials(loras={name: opened}))


def _opened(model: str, path: str, text_weight: float | None) -> LoraFile:
    from ..host.lora import parse_adapters
    from ..pipelines.loading.faults import within
    from ..pipelines.lora import LoraFile

    with within(path):
        return LoraFile(folders.add_on_path(model, FOLDER, "model"), parse_adapters, text_weight)


def _widget(name: str, tip: str) -> io.Input:
    made = widget(Lora, name)
    made.tooltip = f"{made.tooltip} {tip}"
    return made
