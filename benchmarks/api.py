"""What the endpoint costs: a request over the graph that it becomes, and how many of either a second brings."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    from tests.comfy_host import ComfyHost

DESCRIPTION = """
Runs the same small picture on one warm ComfyUI in turn as a request to the endpoint, until its answer is there, and as
the graph that the endpoint makes of it, posted to /prompt, until ComfyUI tells that its last node has run. Every round
has a seed of its own, so no picture comes from a cache. Then eight clients at once do either.
"""

REQUEST = {
    "taskType": "imageInference",
    "model": "sd3-nano",
    "positivePrompt": "a red circle on the left, blue background",
    "width": 64,
    "height": 64,
    "steps": 2,
    "CFGScale": 5,
}
CLIENTS = 8
WARM_UP = 5
SEEDS = count(1)
ENDPOINT, DIRECT = "request to the endpoint", "graph posted to /prompt"

Client = Callable[[], str]
"""Has one picture made, and returns the id of its prompt."""


@dataclass
class Way:
    """One way to have a picture: how a client opens it, and what was measured of it."""

    name: str
    opened: Callable[[], contextlib.AbstractContextManager[Client]]
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def main() -> None:
    options = _output.parser("api", DESCRIPTION)
    options.add_argument("--pictures", type=int, metavar="N", help="pictures of each of the eight clients in a round")
    given = options.parse_args()
    os.environ.update({name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    import torch

    from tests.comfy_host import ComfyHost

    gpu = torch.cuda.is_available() and not given.quick
    rounds, pictures = (5, 1) if given.quick else (200, 25)
    with tempfile.TemporaryDirectory(prefix="sd3-local-bench-") as folder:
        _output.told("Starting ComfyUI ...")
        with ComfyHost(Path(folder), cpu=not gpu) as host:
            ways = race(host, given.rounds or rounds, given.pictures or pictures)
    rows = [row(way, ways[1]) for way in ways]
    show(rows)
    device = torch.cuda.get_device_name() if gpu else "cpu"
    _output.finish("api", _output.setting(given.threads, device), rows, given.json)


def race(host: ComfyHost, rounds: int, pictures: int) -> list[Way]:
    """Both ways, taken in turn by one client, then by all clients."""
    with requesting(host) as ask:
        graph = graph_of(host, ask())
        ways = [Way(ENDPOINT, lambda: requesting(host)), Way(DIRECT, lambda: posting(host, graph))]
        with contextlib.ExitStack() as stack:
            clients = [(way, stack.enter_context(way.opened())) for way in ways]
            for number in range(-WARM_UP, rounds):
                for way, client in clients:
                    seconds = timed(client)
                    if number >= 0:
                        way.latencies.append(seconds)
    _output.told(f"{rounds} rounds of one client done")
    for _ in range(3):
        for way in ways:
            way.rates.append(CLIENTS * pictures / timed(lambda way=way: crowd(way, pictures)))
            _output.told(f"{way.name}: {way.rates[-1]:.1f} pictures per second")
    return ways


def timed(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def crowd(way: Way, pictures: int) -> None:
    """Eight clients at once, each of which has so many pictures made, one after the other."""

    def one(_: int) -> None:
        with way.opened() as client:
            for _ in range(pictures):
                client()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))


@contextlib.contextmanager
def requesting(host: ComfyHost) -> Iterator[Client]:
    """A client of the endpoint with a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)) as connection:

        def ask() -> str:
            task = {**REQUEST, "taskUUID": str(uuid.uuid4()), "seed": next(SEEDS)}
            answer = post(connection, "/sd3local/v1", [task])
            if "imageURL" not in answer.get("data", [{}])[0]:
                raise RuntimeError(f"The endpoint made no picture: {answer}")
            return answer["data"][0]["imageUUID"]

        yield ask


@contextlib.contextmanager
def posting(host: ComfyHost, graph: dict[str, Any]) -> Iterator[Client]:
    """A client of ComfyUI itself, which hears over a WebSocket when its graph has run."""
    client_id = uuid.uuid4().hex
    last = next(key for key, node in graph.items() if node["class_type"] == "SD3LocalDelivery")
    with (
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)) as connection,
        host.listen(client_id) as socket,
    ):

        def run() -> str:
            prompt = post(connection, "/prompt", {"prompt": seeded(graph), "client_id": client_id})["prompt_id"]
            while not ended(socket.receive(60.0), prompt, last):
                pass
            return prompt

        yield run


def post(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read())


def ended(message: str | bytes | None, prompt: str, last: str) -> bool:
    """Whether a message of ComfyUI tells that node `last` of a prompt has run. Raises RuntimeError if it failed."""
    if message is None:
        raise RuntimeError("ComfyUI did not finish a graph within a minute.")
    if not isinstance(message, str):
        return False
    event = json.loads(message)
    if event["data"].get("prompt_id") != prompt:
        return False
    if event["type"] == "execution_error":
        raise RuntimeError(f"ComfyUI could not run the graph: {event['data']['exception_message']}")
    return event["type"] == "executed" and event["data"]["node"] == last


def graph_of(host: ComfyHost, prompt: str) -> dict[str, Any]:
    """The graph that ComfyUI ran."""
    host.wait(prompt)
    return host.history(prompt)["prompt"][2]


def seeded(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph as of another task: with a seed and a UUID of its own."""
    fresh = deepcopy(graph)
    for node in fresh.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] = next(SEEDS)
        if "taskUUID" in node["inputs"]:
            node["inputs"]["taskUUID"] = str(uuid.uuid4())
    return fresh


def row(way: Way, direct: Way) -> dict[str, Any]:
    median = statistics.median(way.latencies)
    return {
        "way": way.name,
        "median_seconds": median,
        "slowest_decile_seconds": statistics.quantiles(way.latencies, n=10)[-1],
        "overhead_seconds": None if way is direct else median - statistics.median(direct.latencies),
        "pictures_per_second": statistics.median(way.rates),
        "rounds": {"seconds": way.latencies, "pictures_per_second": way.rates},
    }


def show(rows: list[dict[str, Any]]) -> None:
    columns = {
        "way": lambda row: row["way"],
        "ms, median": lambda row: milliseconds(row["median_seconds"]),
        "ms, slowest tenth": lambda row: milliseconds(row["slowest_decile_seconds"]),
        "overhead, ms": lambda row: milliseconds(row["overhead_seconds"]),
        f"pictures / s, {CLIENTS} clients": lambda row: f"{row['pictures_per_second']:.1f}",
    }
    rounds = len(rows[0]["rounds"]["seconds"])
    size = f"{REQUEST['width']} x {REQUEST['height']}, {REQUEST['steps']} steps"
    print(f"\nsd3-nano, {size}, {rounds} rounds:\n\n{_output.table(rows, columns)}")


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.1f}"


if __name__ == "__main__":
    main()
