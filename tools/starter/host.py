"""A ComfyUI process with this pack linked in, and its HTTP interface."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkout import StarterError
from .websocket import WebSocket

WATCHED = Path(__file__).with_name("watched.py")
# A proxy that the environment names would be asked for 127.0.0.1 too.
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class HostError(StarterError):
    """What ComfyUI answered when it refused: `status` (HTTP) and `body` (its JSON, or text)."""

    def __init__(self, status: int, body: Any):
        self.status = status
        self.body = body
        super().__init__(describe(status, body))

    @property
    def node_errors(self) -> dict[str, Any]:
        """Node id -> what is wrong with its inputs."""
        return (self.body.get("node_errors") or {}) if isinstance(self.body, dict) else {}


def describe(status: int, body: Any) -> str:
    """One line for each thing that ComfyUI found wrong with a prompt."""
    if not isinstance(body, dict):
        return f"ComfyUI answered {status}: {str(body)[:500]}"
    lines = [
        f"{found.get('class_type', node)}: {_words(error)}"
        for node, found in (body.get("node_errors") or {}).items()
        for error in found.get("errors", [])
    ]
    error = body.get("error")
    message = error.get("message", "") if isinstance(error, dict) else str(error or "")
    return "\n".join(dict.fromkeys(lines) or [message or f"ComfyUI answered {status}."])


def _words(error: Mapping[str, Any]) -> str:
    """What a node's own check says stands alone: ComfyUI repeats it for each input that the check reads."""
    details = error.get("details") or ""
    if error.get("type") == "custom_validation_failed" and " - " in details:
        return details.split(" - ", 1)[1]
    return ": ".join(filter(None, (error.get("message"), details)))


def link_pack(root: Path, custom_nodes: Path, name: str) -> Path:
    """Makes `custom_nodes/name` lead to the pack at `root`. Windows without the right to make links gets a junction."""
    custom_nodes.mkdir(parents=True, exist_ok=True)
    link = custom_nodes / name
    if link.exists() and link.resolve() == root.resolve():
        return link
    if os.path.lexists(link):
        if link.is_dir() and not link.is_symlink():
            os.rmdir(link)  # a junction; a real folder with something in it is refused
        else:
            link.unlink()
    try:
        link.symlink_to(root, target_is_directory=True)
    except OSError:
        if os.name != "nt":
            raise
        subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(root)], check=True, stdout=subprocess.DEVNULL)
    return link


def arguments(comfyui: Path, base: Path, options: Sequence[str]) -> list[str]:
    """ComfyUI's command line for a base folder of its own: nothing of the user's ComfyUI but its code is used."""
    for name in ("checkpoints", "diffusion_models", "text_encoders", "vae"):
        (base / "models" / name).mkdir(parents=True, exist_ok=True)
    (base / "user").mkdir(exist_ok=True)
    database = f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}"
    isolated = ["--base-directory", str(base), "--database-url", database, "--disable-auto-launch"]
    return [str(comfyui / "main.py"), *isolated, *options]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Host:
    """A running ComfyUI. `base` is its own folder: models, input, output, user, custom_nodes with a link to `pack`.

    Use it in a `with` statement, or call `start` and `stop`. It ends with this process, however this process ends.
    """

    def __init__(
        self,
        python: Path,
        comfyui: Path,
        base: Path,
        pack: Path,
        *,
        pack_folder: str = "sd3-local",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self.python = python
        self.comfyui = comfyui
        self.base = base.resolve()
        self.pack = pack
        self.pack_folder = pack_folder
        self.options = list(options)
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **(environment or {})}
        self.models = self.base / "models"
        self.log_file = self.base / "comfyui.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, timeout: float = 300.0, waiting: Callable[[float], None] | None = None) -> None:
        """Returns when ComfyUI answers; `waiting` is called with the seconds waited. Raises StarterError."""
        link_pack(self.pack, self.base / "custom_nodes", self.pack_folder)
        self.port = free_port()
        command = [*arguments(self.comfyui, self.base, self.options), "--port", str(self.port)]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(
                [str(self.python), str(WATCHED), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.base,
            )
        started = time.monotonic()
        try:
            while not self.answers():
                waited = time.monotonic() - started
                if not self.running:
                    raise StarterError(f"ComfyUI ended before it was ready. Its last words:\n{self.log_end()}")
                if waited > timeout:
                    raise StarterError(f"ComfyUI was not up after {timeout:.0f} s. Its last words:\n{self.log_end()}")
                if waiting is not None:
                    waiting(waited)
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process, kindly first."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdin:
                process.stdin.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        try:
            self.get("/system_stats", timeout=5.0)
        except (OSError, ValueError, StarterError):
            return False
        return True

    def log(self) -> str:
        """What ComfyUI has printed since it was last started."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log_end(self, lines: int = 25) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def read(self, path: str, body: Any = None, timeout: float = 60.0, **query: Any) -> bytes:
        """The answer to a GET, or to a POST where there is a `body` (sent as JSON). Raises HostError for a refusal."""
        url = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data is not None else {})
        try:
            with _OPEN(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as refusal:
            answer: Any = refusal.read().decode(errors="replace")
            with contextlib.suppress(ValueError):
                answer = json.loads(answer)
            raise HostError(refusal.code, answer) from None

    def get(self, path: str, timeout: float = 60.0, **query: Any) -> Any:
        return json.loads(self.read(path, None, timeout, **query))

    def object_info(self) -> dict[str, Any]:
        """Node id -> inputs and outputs, of all nodes that ComfyUI has."""
        return self.get("/object_info")

    def queue(self, prompt: Mapping[str, Any], client_id: str = "", workflow: Mapping[str, Any] | None = None) -> str:
        """Queues a prompt and returns its id; `workflow` is saved in the pictures. Raises HostError for a bad one."""
        body: dict[str, Any] = {"prompt": prompt, "client_id": client_id}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        return json.loads(self.read("/prompt", body))["prompt_id"]

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What became of a prompt: `outputs` by node id and `status`; None while it waits or runs."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def interrupt(self) -> None:
        """Asks ComfyUI to cancel what it runs."""
        self.read("/interrupt", {})

    def view(self, image: Mapping[str, str]) -> bytes:
        """The bytes of a picture that a prompt's outputs name by `filename`, `subfolder` and `type`."""
        return self.read("/view", **{key: image[key] for key in ("filename", "subfolder", "type") if key in image})

    def listen(self, client_id: str) -> WebSocket:
        """What ComfyUI tells the browser `client_id`."""
        return WebSocket("127.0.0.1", self.port, f"/ws?clientId={urllib.parse.quote(client_id)}")


def failure(entry: Mapping[str, Any]) -> str | None:
    """The error of a finished prompt (its history), in the node's own words; None when it went well."""
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return None
    for event, data in reversed(status.get("messages") or []):
        if event == "execution_error":
            return f"{data['node_type']}: {data['exception_message'].strip()}"
        if event == "execution_interrupted":
            return "The run was cancelled."
    return "ComfyUI gave no reason."


def images(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """The pictures that a finished prompt saved, in the order of its nodes."""
    return [image for output in entry.get("outputs", {}).values() for image in output.get("images", [])]
