"""What the editor asks of the server: presets judged, requests made graphs, and how things stand."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..caching.calibration import SHIPPED as SHIPPED_CALIBRATIONS
from ..caching.calibration import Results
from ..host import folders, server
from ..pipelines.errors import RequestError, show
from ..pipelines.parse import dump, parse
from . import answers, home, intake, metadata, pictures, wire
from .export import exported
from .graph import before, to_graph
from .models import KINDS, Kind
from .presets import read

MOST_EXACT = 2**53 - 1
"""The largest whole number up to which JavaScript holds all of them."""

SHIPPED = Path(__file__).resolve().parent.parent / "presets"


def presets(own: list[str]) -> dict[str, Any]:
    """The presets that come with the pack, and the names of the files of a user's own."""
    return {"shipped": _shipped(), "files": own}


@cache
def _shipped() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SHIPPED.glob("*.json"))]


def judged(given: Any) -> dict[str, Any]:
    """A preset and what is wrong with its values. Raises RequestError for what is none."""
    preset = read(given)
    return {"preset": preset.told(), "problems": answers.errors(preset.problems, {})}


async def imported(given: Any) -> dict[str, Any]:
    """The graphs of API requests: one task, an array of them, or what the API's page shows as {"request": task}.

    Pictures are brought into the store for good, so that the graphs name them by UUID. Each task has a graph, with the
    URLs that its pictures came from by their UUIDs and remarks for the user, or errors.
    """
    tasks = [_task(one) for one in (given if isinstance(given, list) else [given])]
    if not tasks or len(tasks) > wire.MOST_TASKS:
        told = f"There are {len(tasks)} requests; it must be 1 to {wire.MOST_TASKS}."
        raise RequestError("invalidRequest", told, "body", max=wire.MOST_TASKS)
    return {"tasks": [await _imported(task) for task in tasks]}


def exported_graph(given: Any) -> dict[str, Any]:
    """The requests that {"prompt": graph, "sources": URLs by UUID} stands for, one for each SD3 Delivery in it: as
    {"request": task}, or the errors of what is none.
    """
    given = given if isinstance(given, Mapping) else {}
    sources = given.get("sources")
    return {"tasks": [_exported(part, sources if isinstance(sources, Mapping) else {}) for part in _parts(given)]}


def told_by(given: Any) -> dict[str, Any]:
    """What the picture in {"image": base64} tells of how it was made: its "request", "workflow" and "prompt"."""
    return metadata.of_file(_content(given))


async def kept(given: Any) -> dict[str, Any]:
    """Stores the picture in {"image": base64} for good, as {"uuid": its UUID}."""
    _content(given)
    return {"uuid": await intake.bring_in(given["image"], "image", "upload", keep=True)}


def state() -> dict[str, Any]:
    """Which models there are, what the API calls them, how far accelerators know them, and where the endpoint is."""
    return {
        "models": {kind: _installed(kind) for kind in KINDS},
        "calibrations": _calibrations(),
        "endpoint": {
            "path": "/sd3local/v1",
            "publicURL": home.settings().get().publicURL,
            "exposed": server.is_exposed(),
            "hasKeys": bool(home.keys().hashes()),
        },
    }


def _installed(kind: Kind) -> list[dict[str, str]]:
    files = sorted({file for _, file in home.models().offered(kind)})
    return [{"file": file, "name": home.models().name_of(file, kind)} for file in files]


def _calibrations() -> list[dict[str, Any]]:
    """The models that accelerators were calibrated for: shipped, and by the user."""
    found = []
    for folder in (folders.calibrations(), SHIPPED_CALIBRATIONS):
        for path in sorted(folder.glob("*.json")):
            try:
                results = Results.model_validate_json(path.read_bytes())
            except (OSError, ValueError):
                # A run says what is wrong with the file.
                continue
            found.append({"model": results.name, "dtype": results.dtype, "shipped": folder == SHIPPED_CALIBRATIONS})
    return found


def _exported(graph: Any, sources: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"request": exported(graph, sources)}
    except RequestError as error:
        return {"errors": answers.errors(error.faults, {})}


def _parts(given: Mapping[str, Any]) -> list[Any]:
    """The part of a graph that each SD3 Delivery needs; the graph itself where it has none, or is no graph."""
    graph = given.get("prompt")
    if not isinstance(graph, Mapping) or not all(isinstance(node, Mapping) for node in graph.values()):
        return [graph]
    ends = [key for key, node in graph.items() if node.get("class_type") == "SD3LocalDelivery"]
    return [before(graph, end) for end in ends] or [graph]


async def _imported(task: Any) -> dict[str, Any]:
    try:
        if not isinstance(task, Mapping):
            raise RequestError("invalidTask", f"A request is {show(task)}; it must be an object.", "taskType")
        # The request of a picture names no task, and neither need one that is only to be a graph.
        wanted = {"taskUUID": str(uuid.uuid4()), **wire.normal(task)}
        request = await asyncio.to_thread(intake.check, wanted)
        stored, _ = await intake.take(request, "", keep=True)
        # The seed stays as it was given: none means a new one for every run.
        names = {name: value for name, value in stored.wire.items() if name != "seed" or request.seed is not None}
        was, now = (dict(intake.pictures_of(one)) for one in (dump(request), stored.wire))
        sources = {now[path]: text for path, text in was.items() if pictures.refer(text, path).kind == "url"}
        graph = to_graph(parse(names))
        if "taskUUID" not in task:
            next(node for node in graph.values() if node["class_type"] == "SD3LocalDelivery")["inputs"]["taskUUID"] = ""
        return {"graph": graph, "sources": sources, "remarks": _remarks(request.seed)}
    except RequestError as error:
        return {"errors": answers.errors(error.faults, task if isinstance(task, Mapping) else {})}


def _remarks(seed: int | None) -> list[str]:
    if seed is None or seed <= MOST_EXACT:
        return []
    return [f"seed is {seed}, and browsers round whole numbers above {MOST_EXACT}: here it means another picture."]


def _task(given: Any) -> Any:
    return given["request"] if isinstance(given, Mapping) and isinstance(given.get("request"), Mapping) else given


def _content(given: Any) -> bytes:
    """The bytes of the picture that the editor sent."""
    text = given.get("image") if isinstance(given, Mapping) else None
    if not isinstance(text, str):
        raise RequestError("missingImage", "image is missing; it must be a picture in base64.", "image")
    reference = pictures.refer(text, "image")
    if reference.kind != "inline":
        raise RequestError("invalidImage", f"image is {show(text)}; it must be a picture in base64.", "image")
    pictures.read(reference.content, "image")
    return reference.content
