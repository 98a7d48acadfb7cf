"""Requests that no client would send, and those that Schemathesis makes of the endpoint's OpenAPI document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answer_judge import MOST_SECONDS, Judge, judge
from tests.comfy_host import ComfyHost
from tests.endpoint import Socket
from tests.strategies import BASE


@pytest.fixture(scope="module")
def api(host: ComfyHost) -> Iterator[Judge]:
    with judge(host) as api:
        yield api


ODD_BODIES: dict[str, Any] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a text": b'"imageInference"',
    "an empty array": b"[]",
    "an array in an array": b"[[]]",
    "numbers in an array": b"[1, null, true]",
    "an empty object": b"{}",
    "no UTF-8": b'[{"taskType": "\xff\xfe"}]',
    "a byte order mark": b"\xef\xbb\xbf[]",
    "UTF-16": '[{"taskType": "pong"}]'.encode("utf-16"),
    "NaN": b'[{"taskType": "imageInference", "CFGScale": NaN}]',
    "infinity": b'[{"taskType": "imageInference", "CFGScale": -Infinity}]',
    "a number without end": b'[{"taskType": "imageInference", "seed": ' + b"9" * 100_000 + b"}]",
    "arrays without end": b"[" * 200_000,
    "objects without end": b'{"a":' * 200_000,
    "arrays in arrays": b"[" * 900 + b"]" * 900,
    "two documents": b"[] []",
    "a name twice": b'[{"taskType": "ping", "taskType": 7}]',
    "lone surrogates": rb'[{"taskType": "\ud800", "taskUUID": "\udfff"}]',
    "surrogates as names": rb'[{"taskType": "imageInference", "\ud800": "\udfff"}]',
    "no type": [{"taskUUID": BASE["taskUUID"]}],
    "a type that is a number": [{"taskType": 5}],
    "a type that is an object": [{"taskType": {"a": []}}],
    "a type that is long": [{"taskType": "x" * 1_000_000, "taskUUID": "y" * 1_000_000}],
    "another type": [{"taskType": "videoInference", "taskUUID": BASE["taskUUID"]}],
    "a UUID that is an array": [{"taskType": "imageInference", "taskUUID": [1]}],
    "getResponse of nothing": [{"taskType": "getResponse"}],
    "getResponse of an unknown task": [{"taskType": "getResponse", "taskUUID": BASE["taskUUID"]}],
    "getResponse of an object": [{"taskType": "getResponse", "taskUUID": {}}],
    "no picture": [{"taskType": "imageUpload", "taskUUID": BASE["taskUUID"]}],
    "a picture that is none": [{"taskType": "imageUpload", "taskUUID": BASE["taskUUID"], "image": "aGVsbG8="}],
    "a picture that is a number": [{"taskType": "imageUpload", "taskUUID": BASE["taskUUID"], "image": 1}],
    "a picture in this machine's files": [
        {"taskType": "imageUpload", "taskUUID": BASE["taskUUID"], "image": "file:///etc/passwd"}
    ],
    "a picture of this machine's server": [
        {"taskType": "imageUpload", "taskUUID": BASE["taskUUID"], "image": "http://127.0.0.1/a.png"}
    ],
    "too many tasks": [{"taskType": "ping"}] * 1000,
    "a model that is long": [{**BASE, "model": "x" * 1_000_000}],
    "names without end": [{**BASE, **{f"name {i}": i for i in range(20_000)}}],
    "LoRAs without end": [{**BASE, "lora": [{"model": "none"}] * 20_000}],
}


def test_the_document_has_all_kinds_of_tasks(api: Judge) -> None:
    answer = api.ask(ODD_BODIES["another type"])
    (error,) = answer.errors
    assert error["code"] == "unsupportedTaskType"
    assert set(error["allowedValues"]) == set(api.document["components"]["schemas"]["Task"]["discriminator"]["mapping"])


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
def test_odd_bodies_are_refused(api: Judge, body: Any) -> None:
    with api.pinged():
        answer = api.ask(body, headers={})
    assert answer.status in (400, 404), answer
    assert "data" not in answer.body


def test_odd_messages_over_a_websocket_leave_it_open(api: Judge) -> None:
    with Socket(api.host) as socket:
        for number, body in enumerate(ODD_BODIES.values()):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            socket.send_text(raw.decode(errors="replace"))
            api.examine(json.dumps(socket.receive(MOST_SECONDS)), "Failure")
            pong = {"taskType": "ping", "pong": True, "taskUUID": str(number)}
            socket.send({"taskType": "ping", "taskUUID": str(number)})
            # Of several tasks in one message each is answered for itself.
            while "errors" in (message := socket.receive(MOST_SECONDS)):
                api.examine(json.dumps(message), "Failure")
            assert message == {"data": [pong]}


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_other_kinds_of_content_are_json_or_refused(api: Judge, kind: str) -> None:
    task = {"taskType": "ping", "ping": True}
    answer = api.ask([task], headers={"Content-Type": kind})
    assert answer.status in (200, 400)
    answer = api.ask(b"a=b&c=%00", headers={"Content-Type": kind})
    assert answer.status == 400


def test_what_claims_to_be_compressed_and_is_not(api: Judge) -> None:
    for coding in ("gzip", "deflate", "br", "nonsense"):
        answer = api.send(b"no such thing", headers={"Content-Encoding": coding})
        assert answer.status in (200, 400, 413, 415) and "Traceback" not in answer.text


@pytest.mark.parametrize("name", ["x", "x.png", "..%2f..%2fcomfyui.log", "%00", f"{uuid.UUID(int=0)}.png", "a" * 3000])
def test_pictures_that_are_not_there(api: Judge, name: str) -> None:
    answer = api.send(b"", method="GET", path=f"/sd3local/images/{name}")
    assert answer.status == 404 and "Traceback" not in answer.text


# The models that it makes up are not there, and its UUIDs are no v4: most of its tasks would fail for nothing else.
HOOKS = """
import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format("uuid", st.uuids(version=4).map(str))


@schemathesis.hook
def map_body(context, body):
    for task in body if isinstance(body, list) else [body]:
        if isinstance(task, dict) and isinstance(task.get("model"), str):
            task["model"] = "sd3-nano"
    return body
"""


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(api: Judge, tmp_path: Path) -> None:
    """What it makes of the document is sent as a dry run, and each answer must be as the document says."""
    (tmp_path / "sd3_local_hooks.py").write_text(HOOKS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{api.host.url}/sd3local/openapi.json", "--no-color"]
    options = {
        "--header": "X-Runware-Dry-Run: 1",
        "--checks": "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases": "examples,coverage,fuzzing",
        "--max-examples": "200",
        "--seed": "1",
        "--generation-database": "none",
        "--request-timeout": str(MOST_SECONDS),
    }
    environment = {
        **os.environ,
        "NO_PROXY": "127.0.0.1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
        "SCHEMATHESIS_HOOKS": "sd3_local_hooks",
    }
    with api.pinged():
        run = subprocess.run(
            [*command, *(word for option in options.items() for word in option)],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            env=environment,
        )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", run.stdout).groups()
    assert generated == passed and int(generated) > 500
