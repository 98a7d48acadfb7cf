"""The example workflows as they are shipped, through a real ComfyUI; those for SD3 Medium run on the embedded model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.comfy_host import ComfyHost
from tools.examples.editor import Graph
from tools.examples.graphs import EXAMPLES as NANO
from tools.starter.workflow import to_prompt

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
EXAMPLES = {
    path.stem: json.loads(path.read_text("utf-8"))["request"] for path in (ROOT / "tests/data/examples").glob("*")
}


def by_class(prompt: dict) -> dict[str, dict]:
    return {node["class_type"]: node["inputs"] for node in prompt.values()}


def test_there_is_one_for_each_feature_on_the_embedded_model_and_one_for_each_request_of_the_api() -> None:
    assert {path.stem for path in WORKFLOWS} == {"nano-text-to-image", *NANO, *EXAMPLES}
    assert {path.stem for path in (ROOT / "example_workflows").glob("*.jpg")} == {"nano-text-to-image", *NANO}


@pytest.mark.parametrize("name", NANO)
def test_an_example_is_what_its_tool_makes(host: ComfyHost, name: str) -> None:
    graph = Graph(host.object_info())
    NANO[name](graph, name)
    assert json.loads((ROOT / "example_workflows" / f"{name}.json").read_text("utf-8")) == graph.saved(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_request_s_workflow_asks_for_what_the_request_asks_for(host: ComfyHost, name: str) -> None:
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text("utf-8"))
    nodes = by_class(to_prompt(workflow, host.object_info()))
    given = {**nodes["SD3LocalPrompt"], **nodes["SD3LocalSampler"]}
    request = EXAMPLES[name]
    for field in ("positivePrompt", "width", "height", "seed", "steps", "CFGScale"):
        assert given[field] == request[field]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_to_a_picture(host: ComfyHost, path: Path) -> None:
    prompt = to_prompt(json.loads(path.read_text("utf-8")), host.object_info())
    nodes = by_class(prompt)
    nodes["SD3LocalModel"]["model"] = "sd3-nano"
    if path.stem in EXAMPLES:
        # The largest has 6144 tokens: as many steps as it asks for would take a slow core some minutes.
        nodes["SD3LocalSampler"]["steps"] = 8
    run = host.run(prompt, timeout=500)
    assert run.status == "success", run.error
    saver = next(key for key, node in prompt.items() if node["class_type"] == "SaveImage")
    picture = Image.open(io.BytesIO(host.view(run.outputs[saver]["images"][0])))
    assert picture.size == (nodes["SD3LocalSampler"]["width"], nodes["SD3LocalSampler"]["height"])
    # A picture of one colour, or black, would be none.
    assert len(picture.convert("P", palette=Image.Palette.ADAPTIVE).getcolors()) > 8
