"""What the editor asks of the server: presets judged, requests made graphs and graphs made requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..pipelines.errors import RequestError, show
from ..pipelines.parse import dump, parse
from . import answers, intake, presets, wire
from .graph import Graph, to_graph, to_request

SHIPPED = Path(__file__).resolve().parent.parent / "presets"


@cache
def shipped() -> list[dict[str, Any]]:
    """The presets that come with the pack."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SHIPPED.glob("*.json"))]


def judged(given: Any) -> dict[str, Any]:
    """A preset and what is wrong with its values. Raises RequestError for what is none."""
    preset = presets.read(given)
    return {"preset": preset.told(), "problems": answers.errors(preset.problems, {})}


async def imported(given: Any) -> dict[str, Any]:
    """The graphs of API requests: one task, an array of them, or what the API's page shows as {"request": task}.

    Pictures are brought into the store, so that the graphs name them by UUID. Each task has a graph or errors.
    """
    tasks = [_task(one) for one in (given if isinstance(given, list) else [given])]
    if not tasks or len(tasks) > wire.MOST_TASKS:
        told = f"There are {len(tasks)} requests; it must be 1 to {wire.MOST_TASKS}."
        raise RequestError("invalidRequest", told, "body", max=wire.MOST_TASKS)
    return {"tasks": [await _imported(task) for task in tasks]}


def exported(given: Any) -> dict[str, Any]:
    """The request that a graph in ComfyUI's API format stands for, as {"request": task}. Raises RequestError where it
    is none, with everything that stands against it.
    """
    graph = given.get("prompt") if isinstance(given, Mapping) else None
    return {"request": dump(to_request(graph))}


async def _imported(task: Any) -> dict[str, Any]:
    try:
        if not isinstance(task, Mapping):
            raise RequestError("invalidTask", f"A request is {show(task)}; it must be an object.", "taskType")
        request = await asyncio.to_thread(intake.check, wire.normal(task))
        stored, _ = await intake.take(request, "")
        # The seed stays as it was given: none means a new one for every run.
        names = {name: value for name, value in stored.wire.items() if name != "seed" or request.seed is not None}
        graph: Graph = to_graph(parse(names))
        return {"graph": graph}
    except RequestError as error:
        return {"errors": answers.errors(error.faults, task if isinstance(task, Mapping) else {})}


def _task(given: Any) -> Any:
    return given["request"] if isinstance(given, Mapping) and isinstance(given.get("request"), Mapping) else given
