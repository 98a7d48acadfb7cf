"""The endpoint as a client sees it, and servers that stand for those that it sends to and fetches from."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.starter.host import Host
from tools.starter.websocket import WebSocket

V1 = "/sd3local/v1"
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, the headers, and the body, as JSON where it is."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def data(self) -> list[dict[str, Any]]:
        """The results, where there are no errors."""
        assert self.status == 200 and list(self.body) == ["data"], self.body
        return self.body["data"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The errors, where there is nothing else."""
        assert list(self.body) == ["errors"], self.body
        return self.body["errors"]

    @property
    def codes(self) -> list[str]:
        return [error["code"] for error in self.errors]


def task(**fields: Any) -> dict[str, Any]:
    """The smallest picture that the embedded model makes, with `fields` beside it or instead of what it has."""
    basics = {"model": "sd3-nano", "positivePrompt": "a red circle on the left, blue background"}
    small = {"width": 64, "height": 64, "steps": 2, "seed": 5}
    return {"taskType": "imageInference", "taskUUID": str(uuid.uuid4()), **basics, **small, **fields}


def request(
    host: Host, path: str, body: Any = None, method: str | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One HTTP request; `body` is sent as it is, or as JSON where it is no bytes."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    url = path if path.startswith("http") else host.url + path
    given = {"Content-Type": "application/json", **(headers or {})}
    try:
        answer = _OPEN(urllib.request.Request(url, content, given, method=method), timeout=120)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        raw = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return Answer(answer.status, dict(answer.headers), json.loads(raw) if is_json else raw)


def post(host: Host, *tasks: Any, **headers: str) -> Answer:
    """Sends tasks; headers are given with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(host, V1, list(tasks), headers=named)


def response(host: Host, name: str) -> Answer:
    """What getResponse says of a task."""
    return post(host, {"taskType": "getResponse", "taskUUID": name})


def polled(host: Host, name: str, timeout: float = 60.0) -> Answer:
    """What getResponse says once nothing of the task is under way any more."""
    deadline = time.monotonic() + timeout
    while True:
        answer = response(host, name)
        if not any(item.get("status") == "processing" for item in answer.body.get("data", ())):
            return answer
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.05)


def save_settings(host: Host, **settings: Any) -> None:
    answer = request(host, "/sd3local/settings", settings, "PUT")
    assert answer.status == 204, answer.body


class Socket:
    """The endpoint over a WebSocket."""

    def __init__(self, host: Host, key: str | None = "any", query: str = "", session: str | None = None):
        self._socket = WebSocket("127.0.0.1", host.port, V1 + query)
        if key is not None:
            named = {} if session is None else {"connectionSessionUUID": session}
            self.send({"taskType": "authentication", "apiKey": key, **named})
            self.welcome = self.receive()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, *tasks: Any) -> None:
        self._socket.send(json.dumps(list(tasks)).encode())

    def send_text(self, text: str) -> None:
        self._socket.send(text.encode())

    def receive(self, timeout: float = 60.0) -> dict[str, Any]:
        message = self._socket.receive(timeout)
        assert isinstance(message, str), f"no message: {message!r}"
        return json.loads(message)

    def is_silent(self, seconds: float) -> bool:
        return self._socket.receive(seconds) is None


@dataclass
class Received:
    """One request that a `Receiver` got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class Receiver:
    """A real HTTP server. `behave` answers each request: (status, headers, body), after whatever it waits for."""

    def __init__(self, behave: Callable[[Received], tuple[int, Mapping[str, str], bytes]] = lambda _: (200, {}, b"")):
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                got = Received(self.command, self.path, dict(self.headers), body)
                receiver.received.append(got)
                status, headers, content = behave(got)
                with contextlib.suppress(OSError):  # the other side may have gone
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(content)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, path: str) -> list[Received]:
        return [got for got in list(self.received) if got.path == path]

    def wait_for(self, path: str, count: int = 1, timeout: float = 30.0) -> list[Received]:
        """The requests to `path` once there are `count`."""
        deadline = time.monotonic() + timeout
        while len(self.of(path)) < count:
            assert time.monotonic() < deadline, f"{len(self.of(path))} of {count} at {path}"
            time.sleep(0.02)
        return self.of(path)


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def receivers(*behaviors: Callable[[Received], tuple[int, Mapping[str, str], bytes]]) -> Iterator[list[Receiver]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Receiver(behave)) for behave in behaviors]
