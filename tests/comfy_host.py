"""A real ComfyUI for tests and benchmarks: queue a prompt, wait for it, hear what the browser would hear."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.starter.host import Host, HostError, failure, images

ROOT = Path(__file__).resolve().parent.parent
# protocol.py of ComfyUI: the kind of a binary message, and of the picture in it, are four bytes each.
PREVIEW_IMAGE = 1


def comfyui_folder() -> Path:
    """ComfyUI's own code: the user's, else the copy that `run.py setup` unpacked."""
    return Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI").expanduser().resolve()


@dataclass(frozen=True)
class Run:
    """How a prompt ended.

    `status` is success, error, interrupted, or refused (never queued: `error` says what ComfyUI found wrong with it).
    `outputs` is node id -> what the node showed; `images` are the saved pictures, for `ComfyHost.view`; `events` is
    ComfyUI's own record of the run as (event, data), with the traceback in an execution_error.
    """

    status: str
    outputs: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[Mapping[str, str]] = ()
    error: str | None = None
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    prompt_id: str = ""

    @property
    def cached(self) -> list[str]:
        """The nodes that were not run again."""
        return [node for event, data in self.events if event == "execution_cached" for node in data["nodes"]]


class Listener:
    """Collects what ComfyUI sends one browser, in a thread of its own, from `with` to its end.

    `events` are the messages as {"type", "data"}, `previews` the pictures (JPEG or PNG bytes) among them; both grow
    while it listens. Queue with `client_id` to be the browser that hears of the run.
    """

    def __init__(self, host: Host, on_event: Callable[[Mapping[str, Any]], None] | None = None):
        self.client_id = uuid.uuid4().hex
        self.events: list[dict[str, Any]] = []
        self.previews: list[bytes] = []
        self._host = host
        self._on_event = on_event
        self._ended = threading.Event()

    def __enter__(self) -> Listener:
        self._socket = self._host.listen(self.client_id)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """The data of all events of a kind, such as `progress`."""
        return [event["data"] for event in list(self.events) if event["type"] == kind]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Waits until `condition` holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout:.0f} s; heard of {[event['type'] for event in self.events]}")
            time.sleep(0.02)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the host was stopped
            while not self._ended.is_set():
                message = self._socket.receive(0.1)
                if isinstance(message, bytes) and int.from_bytes(message[:4], "big") == PREVIEW_IMAGE:
                    self.previews.append(message[8:])
                elif isinstance(message, str):
                    event = json.loads(message)
                    self.events.append(event)
                    if self._on_event is not None:
                        self._on_event(event)


class ComfyHost(Host):
    """ComfyUI on this interpreter, with this pack, in the folder `base`; on the CPU unless `cpu` is False.

    Use it in a `with` statement. Models go into `.models / "checkpoints"` and its neighbours, pictures into `.input`.
    """

    def __init__(
        self,
        base: Path,
        *,
        pack_folder: str = "sd3-local",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cpu: bool = True,
    ):
        options = [*(["--cpu"] if cpu else []), *options]
        threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        environment = {**threads, **(environment or {})}
        python = Path(sys.executable)
        super().__init__(
            python, comfyui_folder(), base, ROOT, pack_folder=pack_folder, options=options, environment=environment
        )
        self.input = self.base / "input"

    def __enter__(self) -> ComfyHost:
        self.start()
        return self

    def run(self, prompt: Mapping[str, Any], timeout: float = 300.0, client_id: str = "") -> Run:
        """Queues `prompt` and waits for its end. Raises TimeoutError, after which ComfyUI may still be at it."""
        try:
            prompt_id = self.queue(prompt, client_id)
        except HostError as refusal:
            return Run("refused", error=str(refusal))
        return self.wait(prompt_id, timeout)

    def wait(self, prompt_id: str, timeout: float = 300.0) -> Run:
        """The end of a queued prompt."""
        deadline = time.monotonic() + timeout
        while (entry := self.history(prompt_id)) is None:
            if not self.running:
                raise RuntimeError(f"ComfyUI ended in the middle of the run:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the prompt did not end within {timeout:.0f} s:\n{self.log_end()}")
            time.sleep(0.05)
        events = [(event, data) for event, data in entry["status"]["messages"]]
        error = failure(entry)
        interrupted = any(event == "execution_interrupted" for event, _ in events)
        status = "success" if error is None else "interrupted" if interrupted else "error"
        return Run(status, entry["outputs"], images(entry), error, events, prompt_id)
