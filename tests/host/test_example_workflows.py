"""The example workflows and blueprints as they are shipped, through a real ComfyUI; those for SD3 Medium run on the
embedded model.
"""

from __future__ import annotations

import io
import itertools
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.comfy_host import ComfyHost
from tools.examples.blueprints import BLUEPRINTS
from tools.examples.diagram import SIDE
from tools.examples.editor import INPUT, OUTPUT, Graph
from tools.examples.graphs import EXAMPLES
from tools.examples.requests import REQUESTS, request
from tools.starter.workflow import to_prompt

ROOT = Path(__file__).resolve().parents[2]
FOLDER, SUBGRAPHS = ROOT / "example_workflows", ROOT / "subgraphs"
WORKFLOWS = [*EXAMPLES, *REQUESTS]


def shipped(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def blueprint(name: str) -> dict[str, Any]:
    return json.loads((SUBGRAPHS / f"{name}.json").read_text("utf-8"))


def by_class(prompt: dict) -> dict[str, dict]:
    return {node["class_type"]: node["inputs"] for node in prompt.values()}


def overlap(one: list[float], other: list[float]) -> bool:
    """Of two boxes [left, top, width, height]."""
    return all(
        one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in range(2)
    )


def contains(outer: list[float], inner: list[float]) -> bool:
    return all(
        outer[axis] <= inner[axis] and inner[axis] + inner[axis + 2] <= outer[axis] + outer[axis + 2]
        for axis in range(2)
    )


def check_tidy(groups: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> None:
    """Each node stands in one titled group, and nothing lies over anything else, title bars included."""
    frames = [group["bounding"] for group in groups]
    boxes = [[node["pos"][0], node["pos"][1] - 30, node["size"][0], node["size"][1] + 30] for node in nodes]
    for box in boxes:
        assert [contains(frame, box) for frame in frames].count(True) == 1
    for placed in (frames, boxes):
        assert not [pair for pair in itertools.combinations(placed, 2) if overlap(*pair)]
    assert {"Model and prompt", "Sampling"} <= {group["title"] for group in groups}


def made(host: ComfyHost, name: str) -> dict[str, Any]:
    graph = Graph(host.object_info())
    (EXAMPLES.get(name) or request)(graph, name)
    return graph.saved(name)


def test_there_is_one_for_each_feature_on_the_embedded_model_and_one_for_each_request_of_the_api() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(WORKFLOWS)
    assert {path.stem for path in SUBGRAPHS.glob("*.json")} == set(BLUEPRINTS)
    assert len(REQUESTS) == 4


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_what_its_tool_makes(host: ComfyHost, name: str) -> None:
    assert shipped(name) == made(host, name)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_a_thumbnail_that_the_template_browser_finds(host: ComfyHost, name: str) -> None:
    """Under the workflow's own name: the browser asks for that and nothing else."""
    assert name in host.get("/workflow_templates")[host.pack_folder]
    file = urllib.parse.quote(f"/api/workflow_templates/{host.pack_folder}/{name}.jpg")
    picture = Image.open(io.BytesIO(host.read(file)))
    assert picture.format == "JPEG" and 256 <= max(picture.size) <= SIDE


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_tidy_and_says_what_it_shows(name: str) -> None:
    workflow = shipped(name)
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert note["widgets_values"][0].startswith(f"## {name}\n\n")
    check_tidy(workflow["groups"], [node for node in workflow["nodes"] if node is not note])


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_s_workflow_asks_for_what_the_request_asks_for(host: ComfyHost, name: str) -> None:
    nodes = by_class(to_prompt(shipped(name), host.object_info()))
    given = {**nodes["SD3LocalPrompt"], **nodes["SD3LocalSampler"]}
    for field in ("positivePrompt", "width", "height", "seed", "steps", "CFGScale"):
        assert given[field] == REQUESTS[name][field]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_to_a_picture(host: ComfyHost, name: str) -> None:
    prompt = to_prompt(shipped(name), host.object_info())
    nodes = by_class(prompt)
    nodes["SD3LocalModel"]["model"] = "sd3-nano"
    if name in REQUESTS:
        # The largest has 6144 tokens: as many steps as it asks for would take a slow core some minutes.
        nodes["SD3LocalSampler"]["steps"] = 2
    check_picture(host, prompt, nodes["SD3LocalSampler"])


def check_picture(host: ComfyHost, prompt: dict[str, Any], size: dict[str, Any]) -> None:
    """`prompt` runs, and its Save Image gets a picture of that size."""
    run = host.run(prompt, timeout=500)
    assert run.status == "success", run.error
    saver = next(key for key, node in prompt.items() if node["class_type"] == "SaveImage")
    picture = Image.open(io.BytesIO(host.view(run.outputs[saver]["images"][0])))
    assert picture.size == (size["width"], size["height"])
    # A picture of one colour, or black, would be none.
    assert len(picture.convert("P", palette=Image.Palette.ADAPTIVE).getcolors()) > 8


def test_blueprints_have_names_of_their_own() -> None:
    """The older frontend takes an open workflow for the blueprint that has its name."""
    assert not {path.stem for path in SUBGRAPHS.glob("*.json")} & {path.stem for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_is_what_its_tool_makes_and_comfyui_serves_it(host: ComfyHost, name: str) -> None:
    assert blueprint(name) == BLUEPRINTS[name](Graph(host.object_info()), name)
    entries = host.get("/global_subgraphs")
    (served,) = [
        key
        for key, entry in entries.items()
        if entry["name"] == name and entry["info"] == {"node_pack": f"custom_nodes.{host.pack_folder}"}
    ]
    assert json.loads(host.get(f"/global_subgraphs/{served}")["data"]) == blueprint(name)


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_is_one_node_whose_sockets_are_those_of_the_graph_within(name: str) -> None:
    workflow = blueprint(name)
    (holder,) = workflow["nodes"]
    (within,) = workflow["definitions"]["subgraphs"]
    assert holder["type"] == within["id"] and holder["title"] == within["name"] == name
    assert workflow["extra"]["BlueprintDescription"] == within["description"]
    check_tidy(within["groups"], within["nodes"])
    nodes = {node["id"]: node for node in within["nodes"]}
    links = {link["id"]: link for link in within["links"]}
    for side, inner, outer in (
        (INPUT, within["inputs"], holder["inputs"]),
        (OUTPUT, within["outputs"], holder["outputs"]),
    ):
        assert [(each["name"], each["type"]) for each in inner] == [(each["name"], each["type"]) for each in outer]
        for slot, socket in enumerate(inner):
            (link,) = [links[number] for number in socket["linkIds"]]
            here, there = ("origin", "target") if side == INPUT else ("target", "origin")
            assert (link[f"{here}_id"], link[f"{here}_slot"], link["type"]) == (side, slot, socket["type"])
            end = nodes[link[f"{there}_id"]]["inputs" if side == INPUT else "outputs"][link[f"{there}_slot"]]
            assert end["type"] == socket["type"]
            assert end["link"] == link["id"] if side == INPUT else link["id"] in end["links"]
            if side == INPUT:
                assert ("widget" in end) == ("widget" in outer[slot])
    for node in within["nodes"]:
        for slot, socket in enumerate(node["inputs"]):
            if socket["link"] is not None:
                link = links[socket["link"]]
                assert (link["target_id"], link["target_slot"], link["type"]) == (node["id"], slot, socket["type"])


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_s_graph_runs_to_a_picture(host: ComfyHost, name: str) -> None:
    """Flattened as the editor does it: what nothing is linked to keeps the values within."""
    workflow = blueprint(name)
    (within,) = workflow["definitions"]["subgraphs"]
    prompt = to_prompt(within, host.object_info())
    nodes = by_class(prompt)
    sampler = next(key for key, node in prompt.items() if node["class_type"] == "SD3LocalSampler")
    nodes["SD3LocalSampler"]["steps"] = 4
    prompt |= {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 255}},
        "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 128}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": [sampler, 0], "filename_prefix": "blueprint"}},
    }
    pictures = {"IMAGE": ["image", 0], "MASK": ["mask", 0]}
    links = {link["id"]: link for link in within["links"]}
    for socket in within["inputs"]:
        if socket["type"] in pictures:
            link = links[socket["linkIds"][0]]
            target = next(node for node in within["nodes"] if node["id"] == link["target_id"])
            prompt[str(target["id"])]["inputs"][target["inputs"][link["target_slot"]]["name"]] = pictures[
                socket["type"]
            ]
    check_picture(host, prompt, nodes["SD3LocalSampler"])
