"""Whether what the endpoint answers keeps to the rules of all answers, whatever it was sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from sd3_local.pipelines.fields import specs
from sd3_local.pipelines.request import ImageInference

from tests.comfy_host import ComfyHost
from tests.endpoint import V1, Socket

DRY = {"X-Runware-Dry-Run": "1"}
MOST_SECONDS = 20.0
"""Of one answer, after which the endpoint counts as hung."""
LONGEST = 100_000
"""Characters of an answer without pictures: an endpoint that repeats what it was sent would tell more."""


@dataclass(frozen=True)
class Told:
    """An answer: the HTTP status, and the body as text."""

    status: int
    text: str

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self.body.get("errors", [])


class Judge:
    """Sends whatever it is given to the endpoint of a real ComfyUI, and judges the answers by its OpenAPI document."""

    def __init__(self, host: ComfyHost):
        self.host = host
        self.document = host.get("/sd3local/openapi.json")
        self._schemas = {
            name: Draft202012Validator({**self.document, "$ref": f"#/components/schemas/{name}"})
            for name in ("Response", "Failure")
        }

    def ask(self, body: Any, headers: dict[str, str] = DRY) -> Told:
        """The answer to `body`, which keeps to the rules: a dry run, unless `headers` say otherwise."""
        answer = self.send(body, headers)
        assert answer.status in (200, 400, 404, 413, 429), answer
        self.examine(answer.text, "Response" if answer.status == 200 else "Failure")
        return answer

    def examine(self, text: str, kind: str) -> None:
        """Whether an answer is as the document says of its kind, not too long, and tells nothing of the inside."""
        assert len(text) < LONGEST, text[:2000]
        assert "Traceback" not in text and '.py"' not in text, text[:2000]
        problems = self._schemas[kind].iter_errors(json.loads(text))
        assert not [problem.message[:500] for problem in problems], text[:2000]
        assert all(map(_is_placed, json.loads(text).get("errors", ()))), text[:2000]

    def send(self, body: Any, headers: dict[str, str] = DRY, method: str = "POST", path: str = V1) -> Told:
        """Any answer at all."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.host.port, MOST_SECONDS)) as connection:
            connection.request(method, path, raw, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return Told(answer.status, answer.read().decode())

    @contextlib.contextmanager
    def pinged(self) -> Iterator[None]:
        """While this lasts, a WebSocket asks for one pong after the other, and has each within a second."""
        waits: list[float] = []
        ended = threading.Event()

        def ask() -> None:
            with Socket(self.host) as socket:
                while not waits or not ended.wait(0.05):
                    started = time.monotonic()
                    socket.send({"taskType": "ping", "ping": True})
                    assert socket.receive(MOST_SECONDS) == {"data": [{"taskType": "ping", "pong": True}]}
                    waits.append(time.monotonic() - started)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert waits and max(waits) < 1


@contextlib.contextmanager
def judge(host: ComfyHost) -> Iterator[Judge]:
    """A judge who at the end also looks at ComfyUI: nothing failed in there, and nothing waits in its queue."""
    before = len(host.log())
    yield Judge(host)
    # What else has a traceback in the log is aiohttp's, about what is no HTTP.
    log = host.log()[before:]
    assert "SD3 Local's endpoint" not in log, log[-5000:]
    queue = host.get("/queue")
    assert queue["queue_running"] == queue["queue_pending"] == []


def _is_placed(error: dict[str, Any]) -> bool:
    """Whether a client knows where to look: in the body, at a parameter of the API, or at a name of its own."""
    root = re.split(r"[.\[]", error["parameter"])[0]
    return root in {"body", "image", *specs(ImageInference)} or error["code"] == "unsupportedParameter"
