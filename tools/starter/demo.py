"""`run.py demo`: one example workflow through a real ComfyUI, and its picture into `output/`."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkout import Checkout, StarterError, say
from .host import Host, failure, images
from .websocket import WebSocket
from .workflow import to_prompt

WORKFLOW = "SD3 text to image"
ENDINGS = {"execution_success", "execution_error", "execution_interrupted"}


def run(checkout: Checkout, host: Host) -> list[Path]:
    """Draws the pictures of the demo's workflow on `host`, which it starts and stops. Raises StarterError."""
    file = checkout.root / "example_workflows" / f"{WORKFLOW}.json"
    try:
        workflow = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StarterError(f"The demo's workflow cannot be read: {error}") from error
    started = time.monotonic()
    say("Starting ComfyUI ...")
    display = Display()
    try:
        host.start(waiting=lambda seconds: display.line(f"  waiting for it: {seconds:.0f} s"))
        display.end()
        say(f"ComfyUI is up after {time.monotonic() - started:.0f} s. Drawing {file.name} ...")
        entry = follow(host, to_prompt(workflow, host.object_info()), workflow, display)
        if reason := failure(entry):
            raise StarterError(reason)
        paths = [write_new(checkout.output / image["filename"], host.view(image)) for image in images(entry)]
    finally:
        display.end()
        host.stop()
    if not paths:
        raise StarterError("The workflow ran and saved no picture.")
    for path in paths:
        say(f"Picture: {path}")
    say("The same graph in the editor: python3 run.py serve,")
    say(f"then Workflow > Browse Templates > sd3-local > {WORKFLOW}")
    return paths


def follow(host: Host, prompt: Mapping[str, Any], workflow: Mapping[str, Any], display: Display) -> dict[str, Any]:
    """Queues `prompt`, shows its progress, and returns its history when it has ended."""
    client = uuid.uuid4().hex
    socket: WebSocket | None = host.listen(client)
    try:
        prompt_id = host.queue(prompt, client, workflow)
        while True:
            message = None
            try:
                message = socket.receive(0.5) if socket else time.sleep(0.5)
            except OSError:
                socket = None  # the history alone tells when it is done
            event = json.loads(message) if isinstance(message, str) else {}
            show(event, prompt, display)
            if not event or event["type"] in ENDINGS:
                if entry := host.history(prompt_id):
                    return entry
                if not host.running:
                    raise StarterError(f"ComfyUI ended in the middle of the run. Its last words:\n{host.log_end()}")
    finally:
        if socket:
            socket.close()


def show(event: Mapping[str, Any], prompt: Mapping[str, Any], display: Display) -> None:
    """Says which node runs, and how far it is."""
    data = event.get("data") or {}
    node = prompt.get(str(data.get("node")))
    if node is None:
        return
    if event["type"] == "executing":
        display.end()
        display.line(f"  {node['_meta']['title']}")
    elif event["type"] == "progress":
        display.line(f"  {node['_meta']['title']}: {data['value']} of {data['max']}")


class Display:
    """A line that is written over again on a terminal; elsewhere a new one, at most every ten seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.pending = ""
        self.next = 0.0

    def line(self, text: str) -> None:
        self.pending = text
        if self.terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif time.monotonic() >= self.next:
            self.end()

    def end(self) -> None:
        """Leaves the last line standing."""
        if self.pending:
            say("" if self.terminal else self.pending)
            self.next = time.monotonic() + 10.0
        self.pending = ""


def write_new(path: Path, data: bytes) -> Path:
    """Writes `data` to `path`, or to the first free name like it, whole or not at all; returns that path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    scratch = free.with_name(free.name + ".part")
    try:
        scratch.write_bytes(data)
        scratch.replace(free)
    finally:
        scratch.unlink(missing_ok=True)
    return free
