"""The endpoint in a real ComfyUI: tasks in, results and errors out, over HTTP and a WebSocket."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ROOT, ComfyHost
from tests.endpoint import V1, Receiver, Socket, polled, post, request, response, save_settings, task, wait_until

EXAMPLES = sorted((ROOT / "tests" / "data" / "examples").iterdir())
ENCODERS = {"clip_l": ClipSpec(64, 6), "clip_g": ClipSpec(64, 6, 64)}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    with ComfyHost(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


def picture(color: str = "red", size: tuple[int, int] = (64, 64), form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, form, **options)
    return out.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pixels(host: ComfyHost, item: dict[str, Any]) -> Image.Image:
    answer = request(host, item["imageURL"])
    assert answer.status == 200
    return Image.open(io.BytesIO(answer.body)).convert("RGB")


def test_a_task_gives_results_in_the_api_s_shape_and_seed_plus_i(host: ComfyHost) -> None:
    asked = task(numberResults=3, outputFormat="PNG")
    items = post(host, asked).data
    for i, item in enumerate(items):
        assert list(item) == ["taskType", "taskUUID", "imageUUID", "imageURL", "seed"]
        assert (item["taskType"], item["taskUUID"], item["seed"]) == ("imageInference", asked["taskUUID"], 5 + i)
        assert item["imageURL"] == f"{host.url}/sd3local/images/{item['imageUUID']}.png"
    assert len({item["imageUUID"] for item in items}) == 3
    alone = post(host, task(seed=6, outputFormat="PNG")).data[0]
    assert pixels(host, alone).tobytes() == pixels(host, items[1]).tobytes()


def test_one_object_is_as_good_as_an_array(host: ComfyHost) -> None:
    assert request(host, V1, {"taskType": "ping", "ping": True}).data == [{"taskType": "ping", "pong": True}]


def test_tasks_of_one_request_succeed_and_fail_for_themselves(host: ComfyHost) -> None:
    good, bad = task(), task(width=63)
    answer = post(host, bad, good, {"taskType": "videoInference", "taskUUID": "x"}, 7)
    assert answer.status == 200
    assert [item["taskUUID"] for item in answer.body["data"]] == [good["taskUUID"]]
    told = [(error["code"], error.get("taskUUID")) for error in answer.body["errors"]]
    assert told == [("invalidWidth", bad["taskUUID"]), ("unsupportedTaskType", "x"), ("invalidTask", None)]


def test_everything_that_is_wrong_is_told_at_once(host: ComfyHost) -> None:
    answer = post(
        host,
        task(
            width=63,
            model="nope",
            lora=[{"model": "other"}],
            inputs={"seedImage": str(uuid.uuid4()), "maskImage": encoded(b"no picture at all")},
            sede=4,
        ),
    )
    assert answer.status == 400
    assert {error["parameter"] for error in answer.errors} == {
        "width",
        "model",
        "lora[0].model",
        "inputs.seedImage",
        "inputs.maskImage",
        "sede",
    }


def test_what_the_model_refuses_is_told_as_the_api_tells_it(host: ComfyHost) -> None:
    errors = post(host, task(steps=20_000)).errors
    assert [(error["code"], error["parameter"]) for error in errors] == [("invalidSteps", "steps")]
    errors = post(host, task(width=4096, height=4096)).errors
    assert [(error["code"], error["parameter"]) for error in errors] == [
        ("invalidWidth", "width"),
        ("invalidHeight", "height"),
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalidRequest"),
        (b"{", "invalidRequest"),
        (b"[" * 100_000, "invalidRequest"),
        (b"[" * 40 + b"]" * 40, "invalidRequest"),
        (b"[]", "arrayTooSmall"),
        (b"[" + b"1," * 200 + b"1]", "arrayTooLarge"),
        (b'[{"taskType": NaN}]', "invalidRequest"),
        (b"\xff\xfe[]", "invalidRequest"),
        (b"7" * 10_000, "invalidRequest"),
        (b'{"a": 1}', "missingTaskType"),
    ],
)
def test_a_body_that_is_none_is_refused(host: ComfyHost, body: bytes, code: str) -> None:
    answer = request(host, V1, body)
    assert (answer.status, answer.codes) == (400, [code])


def test_a_task_uuid_is_used_once(host: ComfyHost) -> None:
    asked = task()
    assert len(post(host, asked).data) == 1
    assert post(host, asked).codes == ["conflictTaskUUID"]
    upload = {"taskType": "imageUpload", "taskUUID": asked["taskUUID"], "image": encoded(picture())}
    assert post(host, upload).codes == ["conflictTaskUUID"]
    twice = task()
    answer = post(host, twice, twice)
    assert len(answer.body["data"]) == 1 and answer.body["errors"][0]["code"] == "conflictTaskUUID"


def test_an_async_task_is_acknowledged_and_polled(host: ComfyHost) -> None:
    asked = task(deliveryMethod="async", numberResults=2)
    assert post(host, asked).data == [{"taskType": "imageInference", "taskUUID": asked["taskUUID"]}]
    items = polled(host, asked["taskUUID"]).data
    assert [(item["seed"], item["status"]) for item in items] == [(5, "success"), (6, "success")]
    failed = task(deliveryMethod="async", steps=20_000)
    post(host, failed)
    error = polled(host, failed["taskUUID"]).errors[0]
    assert (error["code"], error["status"]) == ("invalidSteps", "error")
    unknown = response(host, str(uuid.uuid4()))
    assert (unknown.status, unknown.codes) == (404, ["taskFailedOrNotFound"])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("way", ["upload", "data URI", "base64", "URL", "result"])
def test_a_picture_comes_in_every_way(host: ComfyHost, way: str, form: str) -> None:
    content = picture("green", form=form, **({} if form == "PNG" else {"quality": 95}))
    if way == "result":
        text = post(host, task(outputFormat={"JPEG": "JPG"}.get(form, form))).data[0]["imageUUID"]
    elif way == "upload":
        sent = {"taskType": "imageUpload", "taskUUID": str(uuid.uuid4()), "image": encoded(content)}
        item = post(host, sent).data[0]
        assert request(host, item["imageURL"]).body == content
        text = item["imageUUID"]
    else:
        text = encoded(content) if way == "base64" else f"data:image/png;base64,{encoded(content)}"
    with Receiver(lambda _: (200, {"Content-Type": "text/plain"}, content)) as receiver:
        save_settings(host, allowedHosts=["127.0.0.1"])
        if way == "URL":
            text = receiver.url + "/a.txt"
        # Strength 0 keeps the seed image.
        item = post(host, task(inputs={"seedImage": text}, strength=0.0, steps=4, outputFormat="PNG")).data[0]
    if way != "result":
        red, green, blue = pixels(host, item).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert green > 90 and red < 60 and blue < 60


def test_addresses_of_private_networks_are_not_fetched(host: ComfyHost) -> None:
    save_settings(host)
    with Receiver(lambda _: (200, {}, picture())) as receiver:
        errors = post(host, task(inputs={"seedImage": f"{receiver.url}/a.png"})).errors
        assert not receiver.received
    assert (errors[0]["code"], errors[0]["parameter"]) == ("invalidSeedImage", "inputs.seedImage")
    assert "allowedHosts" in errors[0]["message"]
    with Receiver(lambda _: (302, {"Location": "http://169.254.169.254/secret"}, b"")) as receiver:
        save_settings(host, allowedHosts=["127.0.0.1"])
        errors = post(host, task(inputs={"seedImage": f"{receiver.url}/a.png"})).errors
        assert len(receiver.received) == 1
    assert "169.254.169.254 is not on the public internet" in errors[0]["message"]


def test_a_dry_run_checks_and_does_nothing(host: ComfyHost) -> None:
    asked = task(numberResults=2)
    dry = {"X_Runware_Dry_Run": "1"}
    save_settings(host, pricePerGpuHour=3600.0)
    post(host, task())
    cost = post(host, asked, **dry).data
    assert cost[0] == {"taskType": "imageInference", "taskUUID": asked["taskUUID"], "cost": cost[0]["cost"]}
    assert cost[0]["cost"] > 0
    assert post(host, task(width=63), **dry).codes == ["invalidWidth"]
    save_settings(host)
    assert len(post(host, asked).data) == 2
    paid = post(host, task(includeCost=True)).data[0]
    assert paid["cost"] == 0


def test_models_are_found_by_the_user_s_names(host: ComfyHost) -> None:
    assert "sd3-nano" in request(host, "/sd3local/models").body["files"]["model"]
    assert post(host, task(model="runware:5@1")).codes == ["invalidModel"]
    table = {"model": {"runware:5@1": "sd3-nano"}, "lora": {"civitai:1@2": "nano-stripes"}}
    assert request(host, "/sd3local/models", table, "PUT").status == 204
    named = task(model="urn:air:sd3:checkpoint:runware:5@1", lora=[{"model": "civitai:1@2"}])
    assert len(post(host, named).data) == 1
    bad = request(host, "/sd3local/models", {"model": {"a:b@1": 7}}, "PUT")
    assert (bad.status, bad.codes) == (400, ["invalidModelTable"])
    found = post(host, {"taskType": "modelSearch", "taskUUID": str(uuid.uuid4()), "search": "NANO-s"}).data[0]
    assert [one["air"] for one in found["results"]] == ["civitai:1@2", "nano-stripes"]
    assert request(host, "/sd3local/models").body["table"]["lora"] == {"civitai:1@2": "nano-stripes"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_s_examples_are_answered_as_there(host: ComfyHost, path: Path) -> None:
    """On a model of the published layout, so small that their sizes are quick."""
    example = json.loads(path.read_text("utf-8"))
    checkpoint = host.models / "checkpoints" / "small.safetensors"
    spec = CheckpointSpec(TransformerSpec(blocks=1, width=64, table=128), VAESpec((8, 16, 16, 16)), **ENCODERS)
    if not checkpoint.exists():
        write_checkpoint(checkpoint, spec, torch.float16)
    request(host, "/sd3local/models", {"model": {"runware:5@1": "small.safetensors"}}, "PUT")
    item = post(host, {**example["request"], "includeCost": True}).data[0]
    expected = example["response"]
    assert list(item) == list(expected)
    assert {name: type(value) for name, value in item.items()} == {
        name: type(value) for name, value in expected.items()
    }
    assert [item[name] for name in ("taskType", "taskUUID", "seed")] == [
        expected[name] for name in ("taskType", "taskUUID", "seed")
    ]
    assert item["imageURL"].endswith(f"{item['imageUUID']}.jpg")
    assert pixels(host, item).size == (example["request"]["width"], example["request"]["height"])


def test_other_sites_pages_are_refused(host: ComfyHost) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert request(host, V1, [task()], headers=headers).status == 403, headers
        assert request(host, "/sd3local/settings", {}, "PUT", headers).status == 403, headers
    assert request(host, V1, [{"taskType": "ping"}], headers={"Origin": host.url}).status == 200


def test_pictures_are_found_by_their_name_alone(host: ComfyHost) -> None:
    item = post(host, task()).data[0]
    name = item["imageURL"].rpartition("/")[2]
    for other in (
        name.replace(".jpg", ".png"),
        f"..%2F{name}",
        "..%2F..%2Fuser%2Fcomfyui.db",
        f"{uuid.uuid4()}.jpg",
        "x",
    ):
        assert request(host, f"/sd3local/images/{other}").status == 404


def test_results_come_over_a_websocket_as_they_are_finished(host: ComfyHost) -> None:
    with Socket(host) as socket:
        assert socket.welcome["data"][0]["taskType"] == "authentication"
        socket.send({"taskType": "ping", "ping": True})
        assert socket.receive() == {"data": [{"taskType": "ping", "pong": True}]}
        first, second, bad = task(numberResults=2), task(), task(width=63)
        socket.send(first, bad)
        socket.send(second)
        frames = [socket.receive() for _ in range(4)]
        assert all(len(frame) == 1 for frame in frames)
        results = [item for frame in frames for item in frame.get("data", ())]
        assert sorted((item["taskUUID"], item["seed"]) for item in results) == sorted(
            [(first["taskUUID"], 5), (first["taskUUID"], 6), (second["taskUUID"], 5)]
        )
        errors = [error for frame in frames for error in frame.get("errors", ())]
        assert [error["taskUUID"] for error in errors] == [bad["taskUUID"]]
        socket.send_text("no JSON")
        assert socket.receive()["errors"][0]["code"] == "invalidRequest"
        asynchronous = task(deliveryMethod="async")
        socket.send(asynchronous)
        assert socket.receive() == {"data": [{"taskType": "imageInference", "taskUUID": asynchronous["taskUUID"]}]}
        pushed = socket.receive()["data"][0]
        assert pushed["imageUUID"] and pushed["status"] == "success"


def test_a_client_that_comes_back_gets_what_it_missed(host: ComfyHost) -> None:
    asked = task(steps=20)
    with Socket(host) as socket:
        session = socket.welcome["data"][0]["connectionSessionUUID"]
        socket.send(asked)
    polled(host, asked["taskUUID"])
    with Socket(host, session=session) as socket:
        assert socket.welcome["data"][0]["connectionSessionUUID"] == session
        assert socket.receive()["data"][0]["taskUUID"] == asked["taskUUID"]
    with Socket(host, session=session) as socket:
        assert socket.is_silent(0.5)


def test_a_task_that_is_cancelled_in_comfyui_ends_in_an_error(host: ComfyHost) -> None:
    long, queued = (task(deliveryMethod="async", steps=900) for _ in range(2))
    post(host, long, queued)
    running, pending = [], []
    while not (running and pending):
        queue = json.loads(host.read("/queue"))
        running, pending = queue["queue_running"], queue["queue_pending"]
    request(host, "/queue", {"delete": [pending[0][1]]})
    request(host, "/interrupt", {"prompt_id": running[0][1]})
    for asked in (long, queued):
        assert polled(host, asked["taskUUID"]).codes == ["taskCancelled"]


def test_a_graph_in_comfyui_s_history_is_the_request(host: ComfyHost) -> None:
    from sd3_local.api.graph import to_request
    from sd3_local.pipelines.parse import dump

    asked = task(CFGScale=3.5, outputFormat="WEBP", outputQuality=80)
    item = post(host, asked).data[0]
    # The result is told as soon as it is there, a moment before ComfyUI is done with its graph.
    wait_until(lambda: host.history(item["imageUUID"]) is not None)
    entry = host.history(item["imageUUID"])
    assert dump(to_request(entry["prompt"][2])) == asked


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    """A server that other machines may reach."""
    with ComfyHost(tmp_path_factory.mktemp("exposed"), options=["--listen", "0.0.0.0"]) as running:
        yield running


def test_off_loopback_nobody_is_let_in_without_a_key(exposed: ComfyHost) -> None:
    answer = post(exposed, task(), Authorization="Bearer guess")
    assert (answer.status, answer.codes) == (401, ["invalidApiKey"])
    with Socket(exposed, key="guess") as socket:
        assert socket.welcome["error"] == socket.welcome["errors"][0]
        assert socket.welcome["error"]["code"] == "invalidApiKey"
        socket.send(task())
        assert socket.receive()["errors"][0]["code"] == "invalidApiKey"


def test_a_key_lets_in_and_only_its_hash_is_kept(exposed: ComfyHost) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tools.api_key", "--user-directory", str(exposed.base / "user")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    key = made.stdout.strip()
    kept = b"".join(path.read_bytes() for path in (exposed.base / "user").rglob("*") if path.is_file())
    assert len(key) > 40 and key.encode() not in kept
    assert len(post(exposed, task(), Authorization=f"Bearer {key}").data) == 1
    both = post(exposed, {"taskType": "authentication", "apiKey": key}, {"taskType": "ping"})
    assert [item["taskType"] for item in both.data] == ["authentication", "ping"]
    assert post(exposed, task()).codes == ["missingApiKey"]
    assert post(exposed, task(), Authorization=f"Bearer {key}x").codes == ["invalidApiKey"]
    with Socket(exposed, key=key) as socket:
        socket.send(task())
        assert socket.receive()["data"][0]["imageUUID"]
    with Socket(exposed, key=None) as socket:
        socket.send({"taskType": "ping"})
        assert socket.receive()["errors"][0]["code"] == "missingApiKey"
