"""What the editor is told of the nodes: everything comes from the request's fields, and ids never change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sd3_local.pipelines.fields import spec
from sd3_local.pipelines.request import (
    AcceleratorOptions,
    ControlNet,
    ImageInference,
    IPAdapter,
    Lora,
    Outpaint,
    Safety,
    Ultralytics,
)

from tests.comfy_host import ComfyHost
from tests.endpoint import request
from tools.locales import node_defs, read

# Saved workflows name these, so they stay for ever; more may be added behind them.
ACCELERATOR = [
    *("fbCache", "fbCacheThreshold", "teaCache", "teaCacheDistance"),
    *("dbCache", "dbCacheThreshold", "dbCacheSkipInterval", "cacheMaxConsecutiveSteps"),
    *("cacheStartStep", "cacheEndStep", "cacheStartStepPercentage", "cacheEndStepPercentage"),
]
IDS = {
    "SD3LocalModel": ["model", "vae", "textEncoder1", "textEncoder2", "textEncoder3", "dtype"],
    "SD3LocalPrompt": ["positivePrompt", "negativePrompt", "clipSkip"],
    "SD3LocalSampler": [
        *("model", "prompt", "width", "height", "seed", "steps", "scheduler", "CFGScale", "numberResults"),
        *("inputs", "outpaint", "lora", "controlNet", "ipAdapters", "ultralytics", "safety"),
        "acceleratorOptions",
    ],
    "SD3LocalPicture": ["picture", "pictures"],
    "SD3LocalInputs": ["strength", "maskMargin", "seedImage", "maskImage"],
    "SD3LocalOutpaint": ["top", "right", "bottom", "left"],
    "SD3LocalFaceFix": [
        *("positivePrompt", "negativePrompt", "steps", "CFGScale", "strength", "confidence", "maskPadding", "maskBlur"),
        "detector",
    ],
    "SD3LocalSafety": ["checkContent", "mode", "classifier"],
    "SD3LocalLora": ["model", "weight", "transformer", "lora", "loraStack"],
    "SD3LocalControlNet": [
        *("model", "guideImage", "weight", "controlMode"),
        *("startStep", "endStep", "startStepPercentage", "endStepPercentage", "controlNet"),
    ],
    "SD3LocalIPAdapter": [
        *("model", "guideImages", "encoder", "weight", "combineMethod", "embedScaling", "weightType"),
        *("weightComposition", "clipVision", "ipAdapters"),
    ],
    "SD3LocalAccelerator": ACCELERATOR,
    "SD3LocalNativeAccelerator": ["model", *ACCELERATOR],
    "SD3LocalCalibrate": ["model", "prompts", "width", "height", "steps", "CFGScale", "again"],
    "SD3LocalCompare": ["imagesA", "imagesB", "labelA", "labelB", "resultA", "resultB"],
    "SD3LocalDelivery": [
        *("result", "taskUUID", "outputType", "outputFormat", "outputQuality", "uploadEndpoint", "webhookURL", "ttl"),
        *("includeCost", "deliveryMethod"),
    ],
}
OUTPUTS = {
    "SD3LocalModel": ["SD3_MODEL"],
    "SD3LocalPrompt": ["SD3_PROMPT"],
    "SD3LocalSampler": ["IMAGE", "LATENT", "SD3_RESULT", "STRING"],
    "SD3LocalPicture": ["IMAGE", "MASK"],
    "SD3LocalInputs": ["SD3_INPUTS"],
    "SD3LocalOutpaint": ["SD3_OUTPAINT"],
    "SD3LocalFaceFix": ["SD3_ULTRALYTICS"],
    "SD3LocalSafety": ["SD3_SAFETY"],
    "SD3LocalLora": ["SD3_LORA"],
    "SD3LocalControlNet": ["SD3_CONTROLNET"],
    "SD3LocalIPAdapter": ["SD3_IPADAPTER"],
    "SD3LocalAccelerator": ["SD3_ACCELERATOR"],
    "SD3LocalNativeAccelerator": ["MODEL"],
    "SD3LocalCalibrate": ["STRING"],
    "SD3LocalCompare": ["STRING"],
    "SD3LocalDelivery": ["STRING"],
}
# The object of the request that a node's widgets are fields of.
OBJECTS = {
    "SD3LocalPrompt": ImageInference,
    "SD3LocalSampler": ImageInference,
    "SD3LocalInputs": ImageInference,
    "SD3LocalOutpaint": Outpaint,
    "SD3LocalFaceFix": Ultralytics,
    "SD3LocalSafety": Safety,
    "SD3LocalLora": Lora,
    "SD3LocalControlNet": ControlNet,
    "SD3LocalIPAdapter": IPAdapter,
    "SD3LocalAccelerator": AcceleratorOptions,
    "SD3LocalNativeAccelerator": AcceleratorOptions,
    "SD3LocalDelivery": ImageInference,
}
# What a node takes from other nodes, or picks from folders.
SOCKETS = {
    *("model", "prompt", "inputs", "outpaint", "lora", "controlNet", "ipAdapters", "ultralytics", "safety"),
    "acceleratorOptions",
    *("seedImage", "maskImage", "detector", "classifier", "guideImage", "loraStack"),
    *("guideImages", "encoder", "clipVision", "result"),
}
FIELDS = [(node, name) for node in OBJECTS for name in IDS[node] if name not in SOCKETS]


@pytest.fixture(scope="module")
def info(host: ComfyHost) -> dict[str, Any]:
    """What the editor is told of all nodes."""
    return host.object_info()


def inputs(info: dict[str, Any], node: str) -> dict[str, list]:
    declared = info[node]["input"]
    return {**declared.get("required", {}), **declared.get("optional", {})}


@pytest.mark.parametrize("node", IDS)
def test_inputs_and_outputs_keep_their_ids_and_order(info: dict[str, Any], node: str) -> None:
    assert list(inputs(info, node))[: len(IDS[node])] == IDS[node]
    assert info[node]["output"][: len(OUTPUTS[node])] == OUTPUTS[node]


@pytest.mark.parametrize(("node", "name"), FIELDS)
def test_a_widget_says_what_its_field_says(info: dict[str, Any], node: str, name: str) -> None:
    kind, options = inputs(info, node)[name]
    field = spec(OBJECTS[node], name)
    assert field.description in options["tooltip"]
    assert options["display_name"]
    if field.choices:
        assert (kind, tuple(options["options"])) == ("COMBO", field.choices)
        assert options["default"] in field.choices
    elif field.type in ("integer", "number"):
        unset = field.default is None
        assert options["min"] == (-1 if unset else field.min)
        assert options["max"] <= field.max
        assert options["step"] == (field.step or 1)
        assert ("-1: not set" in options["tooltip"]) == unset
        assert unset or options["default"] == field.default
    elif field.type == "boolean":
        assert (kind, options["default"]) == ("BOOLEAN", field.default)
    else:
        assert (kind, options["default"]) == ("STRING", "")
        # Prompts have lines.
        assert options["multiline"] == (field.format is None)


def test_every_node_of_the_pack_is_known_here(info: dict[str, Any]) -> None:
    assert {node for node in info if node.startswith("SD3Local")} == set(IDS)


@pytest.mark.parametrize("node", IDS)
def test_every_input_and_output_says_what_it_is(info: dict[str, Any], node: str) -> None:
    said = info[node]
    for name, (_, options) in inputs(info, node).items():
        assert options["display_name"] and options["tooltip"], name
    for index, name in enumerate(said["output_name"]):
        assert name != said["output"][index] and said["output_tooltips"][index], name
    assert said["description"]
    assert said["category"] == "SD3 Local"
    # Also told by a host whose own schemas have none: the frontend may be newer.
    assert len(said["search_aliases"]) >= 3


def test_the_texts_to_be_translated_are_those_that_the_nodes_say(info: dict[str, Any]) -> None:
    assert read("en")["nodeDefs"] == node_defs(info), "`python -m tools.locales` mends this"


@pytest.mark.parametrize("node", IDS)
def test_every_node_has_a_help_page_with_pictures(host: ComfyHost, node: str) -> None:
    page = host.read(f"/extensions/{host.pack_folder}/docs/{node}.md").decode()
    assert page.startswith("# ")
    for name in IDS[node]:
        assert f"**{name}**" in page, name
    pictures = re.findall(r"!\[[^]]+\]\((\S+)\)", page)
    assert pictures
    for picture in pictures:
        assert host.read(f"/extensions/{host.pack_folder}/docs/{picture}"), picture


def test_inputs_that_most_pictures_do_without_can_be_folded_away(info: dict[str, Any]) -> None:
    marked = {
        node: [name for name, (_, options) in inputs(info, node).items() if options.get("advanced")] for node in IDS
    }
    assert marked["SD3LocalPrompt"] == ["clipSkip"]
    assert marked["SD3LocalControlNet"] == ["startStep", "endStep", "startStepPercentage", "endStepPercentage"]
    assert marked["SD3LocalModel"] == ["textEncoder1", "textEncoder2", "textEncoder3", "dtype"]
    assert not marked["SD3LocalSampler"]


def test_the_editor_is_told_of_values_and_tokens(host: ComfyHost) -> None:
    nodes = [{"node": "SD3LocalSampler", "values": {"width": 65}}, {"node": "KSampler", "values": {"cfg": -1}}]
    verdicts = request(host, "/sd3local/check", {"nodes": nodes}).body["nodes"]
    assert [len(verdict["problems"]) for verdict in verdicts] == [1, 0]
    assert verdicts[0]["problems"][0]["parameter"] == "width"
    counts = request(host, "/sd3local/tokens", {"texts": {"positivePrompt": "a red circle"}}).body["counts"]
    assert counts["positivePrompt"] == {"clip": 5, "chunks": 1, "t5": 5, "first_chunk_ends": None}
    assert request(host, "/sd3local/check", {"nodes": 1}).status == 400
