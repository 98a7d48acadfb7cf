"""The published clients of the hosted API against the endpoint: unmodified, from their registries, each in a process of
its own, with nothing changed but the address.

`tests/clients` has the pinned versions and a program for each client, which makes all its calls at once and prints how
they ended; here is judged what it got. runware-sdk and runware come from PyPI, @runware/sdk-js from npm. The
integration tests of runware-sdk's repository (tests/integration/test_smoke.py), which are not in what PyPI has, make
the same calls: one and several pictures over REST and WebSocket, sync and async, a search for models, and a bad prompt;
left out is the one that streams text. The newer JavaScript client, @runware/sdk 1.6.8, was not to be had from npm when
this was written. With a built copy of it (a folder with its dist/index.js and its node_modules) it is tested too:

    RUNWARE_JAVASCRIPT_SDK=folder python3 run.py test tests/host/test_published_clients.py
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sd3_local.api.keys import KeyFile

from tests.clients.installed import npm_packages, run_node, run_python
from tests.comfy_host import ComfyHost
from tools.nano.drawings import draw_edges
from tools.nano.world import draw_scene, sample_scene

SIDE = 128
LORA, CONTROL_NET = "civitai:11@22", "civitai:33@44.5"
TABLE = {
    "model": {"runware:5@1": "sd3-nano"},
    "lora": {LORA: "nano-stripes"},
    "controlNet": {CONTROL_NET: "nano-edges"},
}
PLAIN = {
    "taskType": "imageInference",
    "model": "runware:5@1",
    "positivePrompt": "a red circle on the left, blue background",
    "width": SIDE,
    "height": SIDE,
    "steps": 6,
    "CFGScale": 5,
    "seed": 7,
    "outputFormat": "PNG",
}
# At the lowest the cache reuses whatever it may, so that its picture is another than the plain one.
THRESHOLD = 0.0
PICTURES = ("text", "image", "inpaint", "lora", "controlNet", "accelerator")
KINDS = {"URL": "JPG", "base64Data": "WEBP", "dataURI": "PNG"}
PILLOW = {"JPG": "JPEG", "WEBP": "WEBP", "PNG": "PNG"}
BUILT = os.environ.get("RUNWARE_JAVASCRIPT_SDK")


@dataclass(frozen=True)
class Client:
    """How a client is run, and what sets it apart: whether it tells apart why a request was refused, and whether it
    polls by itself, so that its user never sees what a task was accepted with.
    """

    run: Callable[[Mapping[str, Any]], Any]
    raw_codes: bool = True
    polls: bool = False


def runware_sdk(transport: str) -> Client:
    program = "call_runware_sdk.py"
    return Client(lambda given: run_python("runware-sdk", program, {**given, "transport": transport}), False, True)


def javascript_sdk(transport: str) -> Client:
    def run(given: Mapping[str, Any]) -> Any:
        module = Path(BUILT or "").resolve() / "dist" / "index.js"
        return run_node("call_sdk.mjs", {**given, "transport": transport}, module)

    return Client(run, False, True)


NEEDS_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="runware-sdk needs Python 3.11")


def sdk_js(given: Mapping[str, Any]) -> Any:
    module = npm_packages() / "node_modules" / "@runware" / "sdk-js" / "dist" / "index.js"
    return run_node("call_sdk_js.mjs", given, module)


CLIENTS = [
    pytest.param(runware_sdk("rest"), id="runware-sdk-rest", marks=NEEDS_311),
    pytest.param(runware_sdk("websocket"), id="runware-sdk-websocket", marks=NEEDS_311),
    pytest.param(Client(lambda given: run_python("runware", "call_runware.py", given)), id="runware"),
    pytest.param(Client(sdk_js), id="sdk-js"),
]
if BUILT:
    CLIENTS += [pytest.param(javascript_sdk(way), id=f"sdk-{way}") for way in ("rest", "websocket")]


@dataclass(frozen=True)
class Endpoint:
    http: str
    ws: str
    key: str

    def post(self, tasks: Sequence[Mapping[str, Any]]) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.http, json.dumps(tasks).encode(), headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A ComfyUI with this pack that lets in a key it has made, knows models by AIR, and has a price."""
    base = tmp_path_factory.mktemp("clients")
    folder = base / "user" / "__sd3_local"
    folder.mkdir(parents=True)
    (folder / "models.json").write_text(json.dumps(TABLE))
    (folder / "endpoint.json").write_text(json.dumps({"pricePerGpuHour": 3600}))
    key = KeyFile(folder / "keys.json").make()
    with ComfyHost(base) as host:
        place = f"127.0.0.1:{host.port}/sd3local/v1"
        yield Endpoint(f"http://{place}", f"ws://{place}", key)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A seed image, a mask of its left half, and outlines, as PNG files."""
    rng = np.random.default_rng(3)
    mask = torch.zeros(3, SIDE, SIDE)
    mask[:, :, : SIDE // 2] = 1
    pictures = {"seed": draw_scene(sample_scene(rng)), "mask": mask, "guide": draw_edges(sample_scene(rng))}
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in pictures.items():
        levels = (picture.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(levels).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in pictures}


@pytest.fixture(scope="module")
def wanted(endpoint: Endpoint, files: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The pictures of the same requests in the names of the API's page, posted without any client."""
    seed, mask, guide = (
        base64.b64encode(Path(files[name]).read_bytes()).decode() for name in ("seed", "mask", "guide")
    )
    features = {
        "text": {},
        "image": {"inputs": {"seedImage": seed}, "strength": 0.6},
        "inpaint": {"inputs": {"seedImage": seed, "maskImage": mask}},
        "lora": {"lora": [{"model": LORA, "weight": 1.0}]},
        "controlNet": {"controlNet": [{"model": CONTROL_NET, "guideImage": guide, "weight": 1.0}]},
        "accelerator": {"acceleratorOptions": {"fbCache": True, "fbCacheThreshold": THRESHOLD}},
    }
    names = {str(uuid.uuid4()): name for name in features}
    tasks = [{**PLAIN, **features[name], "taskUUID": task, "outputType": "base64Data"} for task, name in names.items()]
    answer = endpoint.post(tasks)
    assert "errors" not in answer, answer["errors"]
    pictures = {names[item["taskUUID"]]: _pixels(base64.b64decode(item["imageBase64Data"])) for item in answer["data"]}
    assert set(pictures) == set(PICTURES)
    return pictures


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


@pytest.fixture(scope="module")
def ended(client: Client, endpoint: Endpoint, files: Mapping[str, str]) -> dict[str, Any]:
    """How all calls of the client ended: by name, a result or an error."""
    given = {
        "http": endpoint.http,
        "ws": endpoint.ws,
        "key": endpoint.key,
        "plain": PLAIN,
        "files": dict(files),
        "lora": LORA,
        "controlNet": CONTROL_NET,
        "threshold": THRESHOLD,
        "kinds": KINDS,
    }
    return client.run(given)


def test_each_feature_makes_another_picture(wanted: Mapping[str, np.ndarray]) -> None:
    """Else the clients' pictures would be right whatever they had asked for."""
    assert len({picture.tobytes() for picture in wanted.values()}) == len(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_client_gets_the_picture_of_the_same_request(
    ended: Mapping[str, Any], wanted: Mapping[str, np.ndarray], name: str
) -> None:
    (item,) = _result(ended, name)
    assert item["seed"] == PLAIN["seed"]
    assert np.array_equal(_pixels(_download(item)), wanted[name])


@pytest.mark.parametrize("kind", KINDS)
def test_all_ways_of_carrying_a_picture(ended: Mapping[str, Any], wanted: Mapping[str, np.ndarray], kind: str) -> None:
    form = KINDS[kind]
    calls = [name for name in ended if name.startswith(f"{kind} {form}")]
    assert calls
    for call in calls:
        (item,) = _result(ended, call)
        content = _content(item, kind, form)
        assert Image.open(io.BytesIO(content)).format == PILLOW[form]
        assert np.abs(_pixels(content).astype(int) - wanted["text"]).mean() < 6


def test_four_results_have_seeds_of_their_own(ended: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> None:
    items = sorted(_result(ended, "four sync"), key=lambda item: item["seed"])
    assert [item["seed"] for item in items] == [PLAIN["seed"] + i for i in range(4)]
    assert len({item["imageUUID"] for item in items}) == 4
    assert np.array_equal(_pixels(_download(items[0])), wanted["text"])
    assert len({_pixels(_download(item)).tobytes() for item in items}) == 4
    if "parts" in ended:
        assert len(_result(ended, "parts")) == 4


@pytest.mark.parametrize(("name", "count"), [("poll", 1), ("poll four", 4)])
def test_a_task_is_accepted_at_once_and_polled_for(
    client: Client, ended: Mapping[str, Any], wanted: Mapping[str, np.ndarray], name: str, count: int
) -> None:
    found = _result(ended, name)
    if not client.polls:
        (accepted,) = found["accepted"]
        assert accepted["taskUUID"] == found["polled"][0]["taskUUID"]
        assert not accepted.get("imageUUID")
    items = sorted(found["polled"], key=lambda item: item["seed"])
    assert [item["seed"] for item in items] == [PLAIN["seed"] + i for i in range(count)]
    assert all(item["status"] == "success" for item in items)
    assert np.array_equal(_pixels(_download(items[0])), wanted["text"])


def test_an_uploaded_picture_can_be_used(ended: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> None:
    uploaded, item = _result(ended, "upload")
    assert uuid.UUID(uploaded["imageUUID"])
    assert uploaded["imageURL"].startswith("http")
    assert np.array_equal(_pixels(_download(item)), wanted["image"])


def test_a_result_tells_its_cost_when_asked(ended: Mapping[str, Any]) -> None:
    (item,) = _result(ended, "cost")
    assert item["cost"] > 0


def test_models_are_found_by_name(ended: Mapping[str, Any]) -> None:
    found = _result(ended, "models")
    assert "runware:5@1" in [model["air"] for model in found]
    assert {model["category"] for model in found} == {"checkpoint"}


@pytest.mark.parametrize(
    ("name", "parameter", "code"),
    [
        ("unknown model", "model", "invalidModel"),
        ("bad parameter", "steps", "invalidSteps"),
        ("short prompt", "positivePrompt", "invalidPositivePrompt"),
    ],
)
def test_a_bad_request_is_an_error_that_names_its_parameter(
    client: Client, ended: Mapping[str, Any], name: str, parameter: str, code: str
) -> None:
    error = _error(ended, name)
    assert error["parameter"] == parameter
    assert error["code"] == (code if client.raw_codes else "validation")


def test_a_task_that_there_never_was_is_an_error(client: Client, ended: Mapping[str, Any]) -> None:
    error = _error(ended, "unknown task")
    assert error["parameter"] == "taskUUID"
    assert error["code"] == ("taskFailedOrNotFound" if client.raw_codes else "notFound")


def test_an_unknown_key_is_refused(ended: Mapping[str, Any]) -> None:
    error = _error(ended, "bad key")
    # The older Python client has no code for it, only its message.
    assert error.get("code") in ("auth", "invalidApiKey") or error.get("type") == "ConnectionError"
    assert "key" in error["message"].lower()


def _result(ended: Mapping[str, Any], name: str) -> Any:
    assert "result" in ended[name], ended[name]
    return ended[name]["result"]


def _error(ended: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    assert "error" in ended[name], ended[name]
    return ended[name]["error"]


def _content(item: Mapping[str, Any], kind: str, form: str) -> bytes:
    """The picture's file, as the item carries it."""
    if kind == "URL":
        return _download(item)
    if kind == "base64Data":
        return base64.b64decode(item["imageBase64Data"], validate=True)
    start, _, encoded = item["imageDataURI"].partition(",")
    assert start == f"data:image/{PILLOW[form].lower()};base64"
    return base64.b64decode(encoded, validate=True)


def _download(item: Mapping[str, Any]) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(item["imageURL"], timeout=30) as answer:
        return answer.read()


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
