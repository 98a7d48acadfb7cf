"""SD3LocalDelivery: results as the hosted API delivers them."""

from __future__ import annotations

import json
import secrets
import uuid
from typing import Any

from comfy_api.latest import io

from ..pipelines.request import ImageInference
from . import sockets
from .schema import Schema
from .widgets import set_fields, widget

KEPT = "The address is kept in saved workflows and in pictures that carry their workflow, also where it holds a key."
TIPS = {
    "taskUUID": "Nothing: a new one for every run.",
    "outputType": "The URL is always told; base64Data and dataURI add the file itself to the response.",
    "outputFormat": "The file lies in ComfyUI's output folder, under sd3-local.",
    "outputQuality": "From 20 to 99; without effect on PNG.",
    "uploadEndpoint": f"Sent after the run, and again where that fails. {KEPT}",
    "webhookURL": f"Sent after the run, and again where that fails. {KEPT}",
    "ttl": "At least 60, after which the file is deleted and its URL answers 404; where it is not set, it stays.",
    "includeCost": "The seconds that the result took, at the price of an hour of the GPU in the endpoint's settings.",
    "deliveryMethod": "Only the endpoint makes a difference: in a graph the response is there when the run is over.",
}
"""What widgets say beside their fields' descriptions, in their order."""


class SD3LocalDelivery(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalDelivery",
            display_name="SD3 Delivery",
            category=sockets.CATEGORY,
            description="Saves the results as the hosted API delivers them: as files with a URL, uploaded and told of "
            "where you say. The response is what the API answers.",
            search_aliases=["save image", "webhook", "upload", "API response", "export"],
            inputs=[
                # Lazy, so that options which can't be are told of before anything is sampled.
                sockets.Result.Input("result", display_name="result", tooltip="From SD3 Sampler.", lazy=True),
                *(_widget(name) for name in TIPS),
            ],
            outputs=[io.String.Output(display_name="response", tooltip="What the hosted API would answer, as JSON.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_values) -> str:
        """Every run is delivered."""
        return secrets.token_hex()

    @classmethod
    def check_lazy_status(cls, result=None, **values) -> list[str]:
        _options(values)
        return ["result"] if result is None else []

    @classmethod
    def execute(cls, result, **values) -> io.NodeOutput:
        from ..api.delivery import deliver
        from ..host import execution

        options = {"taskUUID": str(uuid.uuid4()), **_options(values)}
        # What ComfyUI notes in a prompt while it runs is no part of it.
        prompt = {
            key: {name: value for name, value in node.items() if name != "is_changed"}
            for key, node in (cls.hidden.prompt or {}).items()
        }
        workflow = (cls.hidden.extra_pnginfo or {}).get("workflow")
        graph = {"prompt": prompt, "workflow": workflow, "node": cls.hidden.unique_id}
        told = deliver(result, options, execution.prompt_id(), graph)
        response = json.dumps({"data": told}, indent=2, ensure_ascii=False)
        return io.NodeOutput(response, ui={"images": [_shown(item) for item in told]})


def _widget(name: str) -> io.Input:
    made = widget(ImageInference, name)
    made.tooltip = f"{made.tooltip} {TIPS[name]}"
    return made


def _options(values: dict[str, Any]) -> dict[str, Any]:
    from ..pipelines.parse import parse_fields

    return parse_fields(ImageInference, set_fields(ImageInference, values))


def _shown(item: dict[str, Any]) -> dict[str, str]:
    """The file of a result, as ComfyUI's editor shows saved pictures."""
    from ..api.home import RESULTS

    return {"filename": item["imageURL"].rpartition("/")[2], "subfolder": RESULTS, "type": "output"}
