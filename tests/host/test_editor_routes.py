"""What the editor asks of a real ComfyUI's server: presets, requests as graphs and back, pictures that tell."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sd3_local.api.graph import OWN_FIELDS
from sd3_local.pipelines.fields import spec
from sd3_local.pipelines.parse import parse
from sd3_local.pipelines.request import ImageInference

from tests.comfy_host import ComfyHost
from tests.endpoint import Answer, post, receivers, request, save_settings, task
from tests.graphs import text_to_image

ROOT = "/sd3local"
EXAMPLES = sorted((Path(__file__).parents[1] / "data" / "examples").glob("*.json"))


def ask(host: ComfyHost, path: str, body: Any) -> Any:
    answer = request(host, ROOT + path, body)
    assert answer.status == 200, answer.body
    return answer.body


def imported(host: ComfyHost, *wires: dict[str, Any]) -> list[dict[str, Any]]:
    return ask(host, "/graph", list(wires))["tasks"]


def exported(host: ComfyHost, graph: Any, **more: Any) -> dict[str, Any]:
    (one,) = ask(host, "/request", {"prompt": graph, **more})["tasks"]
    return one["request"]


def wrong(host: ComfyHost, asked: Any) -> list[str]:
    """What stands against a graph being a request."""
    return [error["message"] for one in ask(host, "/request", asked)["tasks"] for error in one["errors"]]


def png(mode: str = "RGB", color: Any = "red", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (64, 64), color).save(out, "PNG", **options)
    return out.getvalue()


def uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def named(host: ComfyHost) -> Any:
    """A table in which the hosted model's name means the embedded one."""
    before = request(host, f"{ROOT}/models").body["table"]
    put = request(host, f"{ROOT}/models", {"model": {"runware:5@1": "sd3-nano"}}, method="PUT")
    assert put.status == 204
    yield
    request(host, f"{ROOT}/models", before, method="PUT")


def test_shipped_presets_are_served_and_judged(host: ComfyHost) -> None:
    told = request(host, f"{ROOT}/presets").body
    assert told["files"] == []
    presets = told["shipped"]
    assert {"Quality", "Fast", "Drafts", "Portraits", "Inpaint", "Typography"} <= {one["name"] for one in presets}
    for preset in presets:
        assert ask(host, "/presets/check", preset) == {"preset": preset, "problems": []}
    bad = {**presets[0], "nodes": [{"node": "SD3LocalSampler", "values": {"steps": 0, "width": 64}}]}
    told = ask(host, "/presets/check", bad)
    assert told["preset"]["nodes"] == [{"node": "SD3LocalSampler", "values": {"width": 64}}]
    assert [problem["parameter"] for problem in told["problems"]] == ["nodes[0].values.steps"]
    refused = request(host, f"{ROOT}/presets/check", {"format": "other"})
    assert refused.status == 400 and refused.codes == ["invalidPreset"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_s_examples_become_graphs_and_the_same_requests(host: ComfyHost, named: None, path: Path) -> None:
    wire = json.loads(path.read_text("utf-8"))["request"]
    (one,) = ask(host, "/graph", {"request": wire})["tasks"]
    back = exported(host, one["graph"])
    assert parse(back) == parse(wire)
    assert list(back)[:2] == ["taskType", "taskUUID"]


def test_each_of_several_requests_has_a_graph_or_its_errors(host: ComfyHost) -> None:
    good, bad, none = imported(host, task(), task(steps=0, width=65), 3)  # type: ignore[arg-type]
    assert set(good) == {"graph", "sources", "remarks"} and "seed" in good["graph"]["3"]["inputs"]
    assert not good["remarks"] and not imported(host, task(seed=2**53 - 1))[0]["remarks"]
    assert str(2**53 + 1) in imported(host, task(seed=2**53 + 1))[0]["remarks"][0]
    assert [error["parameter"] for error in bad["errors"]] == ["width", "steps"]
    assert none["errors"][0]["code"] == "invalidTask"
    assert request(host, f"{ROOT}/graph", []).status == 400


def test_pictures_of_a_request_are_kept_and_go_back_as_they_came(host: ComfyHost) -> None:
    with receivers(lambda _: (200, {"Content-Type": "image/png"}, png(color="blue"))) as (receiver,):
        save_settings(host, allowedHosts=["127.0.0.1"])
        try:
            inputs = {"seedImage": f"{receiver.url}/seed.png", "maskImage": uri(png("L", 255))}
            wire = task(inputs=inputs, strength=0.5)
            (one,) = imported(host, wire)
        finally:
            save_settings(host)
    assert list(one["sources"].values()) == [inputs["seedImage"]]
    back = exported(host, one["graph"], sources=one["sources"])
    assert back["inputs"]["seedImage"] == inputs["seedImage"]
    assert back["inputs"]["maskImage"] == inputs["maskImage"]
    # Without its address, too, a picture goes on as such: nobody else knows what this server calls it.
    assert exported(host, one["graph"])["inputs"]["seedImage"] == uri(png(color="blue"))
    run = host.run(one["graph"])
    assert run.status == "success", run.error


def test_a_picture_that_is_given_to_the_server_is_kept(host: ComfyHost) -> None:
    name = ask(host, "/pictures", {"image": uri(png())})["uuid"]
    assert host.read(f"{ROOT}/images/{name}.png") == host.read(f"{ROOT}/images/{name}") == png()
    (one,) = imported(host, task(inputs={"seedImage": name}))
    assert exported(host, one["graph"])["inputs"] == {"seedImage": name}
    for bad, code in (({}, "missingImage"), ({"image": name}, "invalidImage"), ({"image": "AAAA"}, "invalidImage")):
        refused = request(host, f"{ROOT}/pictures", bad)
        assert (refused.status, refused.codes) == (400, [code])


def test_pictures_that_comfyui_loads_are_exported_with_their_bytes(host: ComfyHost) -> None:
    (host.input / "seen.png").write_bytes(png("RGBA", (10, 20, 30, 64)))
    (one,) = imported(host, task(inputs={"seedImage": uri(png()), "maskImage": uri(png())}))
    graph = one["graph"]
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": "seen.png"}}
    start = next(node for node in graph.values() if node["class_type"] == "SD3LocalInputs")
    start["inputs"] |= {"seedImage": ["load", 0], "maskImage": ["load", 1]}
    back = exported(host, graph)["inputs"]
    opened = [
        Image.open(io.BytesIO(base64.b64decode(back[name].partition(",")[2]))) for name in ("seedImage", "maskImage")
    ]
    # As ComfyUI loads it: colours without transparency, and transparency as a mask that is white where nothing is.
    assert [one.convert("RGB").getpixel((0, 0)) for one in opened] == [(10, 20, 30), (191, 191, 191)]
    for bad in ("../../etc/passwd", "/etc/passwd", "missing.png", "../input/../../secret.png [output]"):
        graph["load"]["inputs"]["image"] = bad
        assert all("LoadImage" in told for told in wrong(host, {"prompt": graph}))


def test_what_is_no_request_is_told_in_full(host: ComfyHost) -> None:
    graph = text_to_image()
    assert "SD3LocalDelivery" in wrong(host, {"prompt": graph})[0]
    for odd in (
        [],
        b"null",
        {"prompt": None},
        {"prompt": {"1": 3}},
        {"prompt": {"1": {"class_type": "SD3LocalDelivery"}}},
    ):
        assert wrong(host, odd)


def test_a_graph_of_several_requests_is_all_of_them(host: ComfyHost, named: None) -> None:
    wires = [task(seed=seed, model="runware:5@1") for seed in (1, 2)]
    graphs = [one["graph"] for one in imported(host, *wires)]
    both = {
        f"{name}{key}": _renamed(node, name)
        for name, graph in zip("ab", graphs, strict=True)
        for key, node in graph.items()
    }
    told = ask(host, "/request", {"prompt": both})["tasks"]
    assert [parse(one["request"]) for one in told] == [parse(wire) for wire in wires]


def _renamed(node: dict[str, Any], name: str) -> dict[str, Any]:
    inputs = {
        key: [f"{name}{value[0]}", value[1]] if isinstance(value, list) else value
        for key, value in node["inputs"].items()
    }
    return {**node, "inputs": inputs}


@pytest.mark.parametrize("form", ["PNG", "JPG", "WEBP"])
def test_saved_pictures_tell_their_request_and_their_workflow(host: ComfyHost, named: None, form: str) -> None:
    graph = text_to_image(width=64, height=64, steps=2, seed=7, numberResults=2)
    for shows in ("4", "5", "6"):
        del graph[shows]
    options = {name: spec(ImageInference, name).unset for name in OWN_FIELDS["SD3LocalDelivery"]}
    options |= {"outputFormat": form, "webhookURL": "https://a.example/?key=secret"}
    graph["7"] = {"class_type": "SD3LocalDelivery", "inputs": {"result": ["3", 2], **options}}
    workflow = {"nodes": [], "links": [], "version": 0.4}
    run = host.wait(host.queue(graph, workflow=workflow))
    assert run.status == "success", run.error
    for index, shown in enumerate(run.images):
        told = ask(host, "/pictures/told", {"image": base64.b64encode(host.view(shown)).decode()})
        assert told["workflow"] == workflow
        assert told["prompt"]["3"]["inputs"]["seed"] == 7
        assert not {"webhookURL", "taskUUID", "numberResults"} & set(told["request"])
        assert (told["request"]["model"], told["request"]["seed"]) == ("runware:5@1", 7 + index)
        # The request of one picture gives that picture.
        (again,) = imported(host, told["request"])
        assert next(n for n in again["graph"].values() if n["class_type"] == "SD3LocalSampler")["inputs"]["steps"] == 2


def test_pictures_of_the_endpoint_tell_their_request(host: ComfyHost) -> None:
    asked = task(numberResults=2, outputFormat="PNG")
    for index, item in enumerate(post(host, asked).data):
        content = host.read(item["imageURL"].removeprefix(host.url))
        told = ask(host, "/pictures/told", {"image": base64.b64encode(content).decode()})
        assert set(told) == {"request"} and told["request"]["seed"] == asked["seed"] + index
        assert told["request"]["positivePrompt"] == asked["positivePrompt"]


def test_what_files_tell_is_read_without_trust(host: ComfyHost) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("request", "[" * 100_000)
    info.add_text("workflow", "3")
    assert ask(host, "/pictures/told", {"image": uri(png(pnginfo=info))}) == {}
    assert ask(host, "/pictures/told", {"image": uri(png())}) == {}


def test_the_state_tells_models_names_calibrations_and_the_endpoint(host: ComfyHost, named: None) -> None:
    state = request(host, f"{ROOT}/state").body
    assert {"file": "sd3-nano", "name": "runware:5@1"} in state["models"]["model"]
    assert {"file": "nano-stripes", "name": "nano-stripes"} in state["models"]["lora"]
    assert {"model": "SD3 (8 blocks, width 128)", "dtype": "float32", "shipped": True} in state["calibrations"]
    assert state["endpoint"] == {"path": "/sd3local/v1", "publicURL": "", "exposed": False, "hasKeys": False}


def test_other_sites_pages_get_nothing(host: ComfyHost) -> None:
    for path, body in (("/presets", None), ("/state", None), ("/graph", task()), ("/request", {}), ("/pictures", {})):
        answer: Answer = request(host, ROOT + path, body, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403, path
