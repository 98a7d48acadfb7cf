"""Requests as graphs, and graphs as requests: there and back nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from sd3_local.api.graph import to_graph, to_request
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.parse import parse
from sd3_local.pipelines.request import ImageInference
from sd3_local.pipelines.scheduler_names import DEFAULT_SCHEDULER

from tests.strategies import BASE, requests

EXAMPLES = sorted((Path(__file__).parents[1] / "data" / "examples").glob("*"))


def plain(request: ImageInference) -> dict:
    """A request's values, where a text of no letters and the default scheduler are as good as none."""
    wire = request.model_dump(by_alias=True)
    if wire["scheduler"] == DEFAULT_SCHEDULER:
        wire["scheduler"] = None
    if not any((wire["inputs"] or {}).values()):
        wire["inputs"] = None
    for name in ("positivePrompt", "negativePrompt"):
        if wire["ultralytics"]:
            wire["ultralytics"][name] = wire["ultralytics"][name] or None
    return wire


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_s_examples_there_and_back(path: Path) -> None:
    wire = json.loads(path.read_text("utf-8"))["request"]
    request = parse(wire)
    graph = to_graph(request)
    assert json.loads(json.dumps(graph)) == graph
    assert to_request(graph) == request


@given(requests())
def test_any_request_there_and_back(wire: dict) -> None:
    request = parse(wire)
    back = to_request(json.loads(json.dumps(to_graph(request))))
    assert plain(back) == plain(request)
    assert to_graph(back) == to_graph(request)


def test_a_whole_request_has_a_node_for_each_part() -> None:
    wire = {
        **BASE,
        "inputs": {"seedImage": "https://a.example/a.png", "maskImage": "https://a.example/m.png"},
        "outpaint": {"top": 64},
        "lora": [{"model": "a"}, {"model": "b", "weight": -1}],
        "controlNet": [{"model": "c", "guideImage": "g"}],
        "ipAdapters": [{"model": "d", "guideImages": ["1", "2", "3"]}],
        "acceleratorOptions": {"teaCache": True},
        "ultralytics": {},
        "safety": {"checkContent": True},
    }
    graph = to_graph(parse(wire))
    kinds = [node["class_type"] for node in graph.values()]
    assert kinds.count("SD3LocalPicture") == 6 and kinds.count("SD3LocalLora") == 2
    assert kinds[-2:] == ["SD3LocalSampler", "SD3LocalDelivery"]
    sampler = graph[str(len(graph) - 1)]["inputs"]
    second = graph[sampler["lora"][0]]["inputs"]
    assert (second["model"], graph[second["lora"][0]]["inputs"]["model"]) == ("b", "a")
    assert graph[sampler["inputs"][0]]["inputs"]["maskImage"][1] == 1
    assert to_request(graph) == parse(wire)


def test_values_of_comfyui_s_primitive_nodes_are_read() -> None:
    graph = to_graph(parse({**BASE, "seed": 3}))
    sampler = next(node for node in graph.values() if node["class_type"] == "SD3LocalSampler")
    graph["90"] = {"class_type": "PrimitiveInt", "inputs": {"value": 44}}
    sampler["inputs"]["seed"] = ["90", 0]
    assert to_request(graph).seed == 44


def test_what_a_request_can_t_say_is_told_all_at_once() -> None:
    graph = to_graph(parse({**BASE, "inputs": {"seedImage": "s"}, "controlNet": [{"model": "c", "guideImage": "g"}]}))
    nodes = {node["class_type"]: node["inputs"] for node in graph.values()}
    graph["90"] = {"class_type": "Canny", "inputs": {}}
    nodes["SD3LocalControlNet"]["guideImage"] = ["90", 0]
    nodes["SD3LocalSampler"]["seed"] = ["90", 0]
    del nodes["SD3LocalSampler"]["prompt"]
    with pytest.raises(RequestError) as caught:
        to_request(graph)
    assert sorted(fault.parameter for fault in caught.value.faults) == ["guideImage", "prompt", "seed"]
    nodes["SD3LocalSampler"]["prompt"], nodes["SD3LocalSampler"]["seed"] = ["2", 0], 1
    assert to_request(graph, lambda node, output: "made").control_net[0].guide_image == "made"


@pytest.mark.parametrize("graph", [{}, [], {"1": 3}, {"1": {"class_type": "SD3LocalSampler", "inputs": {}}}, "text"])
def test_what_is_no_graph_of_a_request_is_refused(graph: object) -> None:
    with pytest.raises(RequestError) as caught:
        to_request(graph)
    assert caught.value.faults[0].code == "invalidGraph"


def test_a_chain_that_bites_its_tail_comes_to_an_end() -> None:
    graph = to_graph(parse({**BASE, "ipAdapters": [{"model": "d", "guideImages": ["1", "2"]}]}))
    pictures = [key for key, node in graph.items() if node["class_type"] == "SD3LocalPicture"]
    graph[pictures[0]]["inputs"]["pictures"] = [pictures[1], 0]
    assert to_request(graph).ip_adapters[0].guide_images == ("1", "2")
    graph = to_graph(parse({**BASE, "lora": [{"model": "a"}, {"model": "b"}]}))
    first, second = (node for node in graph.values() if node["class_type"] == "SD3LocalLora")
    first["inputs"]["lora"] = next([key, 0] for key, node in graph.items() if node is second)
    assert [lora.model for lora in to_request(graph).lora] == ["a", "b"]
