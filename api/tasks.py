"""What the endpoint does with one task, whichever way it came."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..pipelines.errors import RequestError, show
from ..pipelines.parse import parse_fields
from ..pipelines.request import ImageInference
from . import answers, delivery, home, intake, wire
from .models import CATEGORIES, KINDS
from .service import Service
from .store import Item, StoredPicture, Task, conflict

log = logging.getLogger(__name__)

TASK_TYPES = ("imageInference", "imageUpload", "getResponse", "modelSearch", "ping", "authentication")


@dataclass
class Reply:
    """What a task is answered with at once: results and errors; `awaited` is the task whose results are to follow."""

    data: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    awaited: Task | None = None
    is_async: bool = False


_CATEGORIES_TOLD = f"one of {', '.join(CATEGORIES.values())}"


class Tasks:
    """The kinds of tasks that do something."""

    def __init__(self, service: Service):
        self._service = service

    async def take(self, given: Any, base: str, dry: bool) -> Reply:
        """Does what a task asks for, or begins it; errors are part of the reply. `base` begins the URLs of pictures;
        with `dry` everything is checked, and nothing done.
        """
        task = given if isinstance(given, Mapping) else {}
        try:
            if not isinstance(given, Mapping):
                raise RequestError("invalidTask", f"A task is {show(given)}; it must be an object.", "taskType")
            kind = given.get("taskType")
            if kind is None:
                told = f"taskType is missing; give one of {', '.join(TASK_TYPES)}."
                raise RequestError("missingTaskType", told, "taskType", allowedValues=list(TASK_TYPES))
            if kind == "ping":
                return Reply([{"taskType": "ping", "pong": True} | _name(given)])
            if kind == "imageInference":
                return await self._infer(given, base, dry)
            if kind == "imageUpload":
                return await self._upload(given, base, dry)
            if kind == "getResponse":
                return await self._response(given)
            if kind == "modelSearch":
                return await asyncio.to_thread(_search, given)
            told = f"taskType is {show(kind)}; it must be one of {', '.join(TASK_TYPES)}."
            raise RequestError("unsupportedTaskType", told, "taskType", allowedValues=list(TASK_TYPES))
        except Exception as error:
            if not isinstance(error, RequestError):
                log.exception("SD3 Local's endpoint: a task")
            return Reply(errors=answers.errors(answers.faults_of(error), task))

    async def _infer(self, given: Mapping[str, Any], base: str, dry: bool) -> Reply:
        request = await asyncio.to_thread(intake.check, wire.normal(given))
        name = {"taskType": request.task_type, "taskUUID": request.task_uuid}
        await asyncio.to_thread(_fresh, request.task_uuid)
        if dry:
            return Reply([name | {"cost": await asyncio.to_thread(_cost, request)}])
        task, items = await intake.take(request, base)
        await self._service.accept(task, items)
        is_async = request.delivery_method == "async"
        return Reply([name] if is_async else [], awaited=task, is_async=is_async)

    async def _upload(self, given: Mapping[str, Any], base: str, dry: bool) -> Reply:
        task = _uuid(given)
        text = wire.field(given, "image", lambda value: isinstance(value, str) and value, "a picture")
        await asyncio.to_thread(_fresh, task)
        if dry:
            return Reply([{"taskType": "imageUpload", "taskUUID": task, "cost": 0.0}])
        picture = await intake.bring_in(text, "image", "upload")
        made = Task(task, {"taskType": "imageUpload", "taskUUID": task}, base)
        item = Item(str(uuid.uuid4()), task, 0, None, "done", answer={"imageUUID": picture})
        await self._service.accept(made, [item])
        return Reply([await asyncio.to_thread(self.told, made, item)])

    async def _response(self, given: Mapping[str, Any]) -> Reply:
        name = _uuid(given)
        task = await asyncio.to_thread(home.store().task, name)
        if task is None:
            told = f"There is no task {name}, or none any more."
            raise RequestError("taskFailedOrNotFound", told, "taskUUID")
        reply = Reply()
        for item in await asyncio.to_thread(home.store().items, name):
            if item.state == "failed":
                reply.errors += [error | {"status": "error"} for error in item.answer]
            elif item.state == "done":
                reply.data.append(await asyncio.to_thread(self.told, task, item) | {"status": "success"})
            else:
                doing = {"taskType": task.wire["taskType"], "taskUUID": name, "status": "processing"}
                with contextlib.suppress(KeyError):
                    doing["progress"] = self._service.progress[item.uuid]
                reply.data.append(doing)
        return reply

    @staticmethod
    def told(task: Task, item: Item) -> dict[str, Any]:
        """What a client is told of an item that is done. Reads the picture's file where its bytes are asked for."""
        picture: StoredPicture | None = home.store().picture(item.answer["imageUUID"])
        path = home.store().path(picture) if picture is not None else None
        if path is not None and not path.is_file():
            path = None
        kind = task.wire.get("outputType", "URL")
        return answers.result(task.uuid, task.wire["taskType"], item.answer, task.base, path, kind)


def _search(given: Mapping[str, Any]) -> Reply:
    """The models that there are, by what they are called in requests."""
    name = _uuid(given)
    text = wire.optional(given, "search", "", lambda value: isinstance(value, str), "a text")
    category = wire.optional(given, "category", "", lambda value: value in CATEGORIES.values(), _CATEGORIES_TOLD)
    limit = wire.optional(given, "limit", 20, lambda value: type(value) is int and 1 <= value <= 100, "1 to 100")
    offset = wire.optional(given, "offset", 0, lambda value: type(value) is int and value >= 0, "an integer from 0")
    found = [
        # An older client misses tags and private where they are not told.
        {
            "air": identifier,
            "name": file,
            "category": CATEGORIES[kind],
            "architecture": "sd3",
            "tags": [],
            "private": True,
        }
        for kind in KINDS
        if not category or CATEGORIES[kind] == category
        for identifier, file in home.models().offered(kind)
        if text.lower() in f"{identifier} {file}".lower()
    ]
    shown = found[offset : offset + limit]
    return Reply([{"taskType": "modelSearch", "taskUUID": name, "results": shown, "totalResults": len(found)}])


def _fresh(name: str) -> None:
    """Raises RequestError for a taskUUID that was used before; when it is put down it is looked at again."""
    if home.store().has_task(name):
        raise conflict(name)


def _cost(request: ImageInference) -> float:
    return request.number_results * delivery.estimate(request)


def _uuid(given: Mapping[str, Any]) -> str:
    """The taskUUID of a task that is no imageInference. Raises RequestError."""
    name = wire.field(given, "taskUUID", lambda value: True, "a UUID v4")
    parse_fields(ImageInference, {"taskUUID": name})
    return name


def _name(given: Mapping[str, Any]) -> dict[str, Any]:
    name = given.get("taskUUID")
    return {"taskUUID": name} if isinstance(name, str) else {}
