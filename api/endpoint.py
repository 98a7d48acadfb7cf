"""The endpoint over HTTP: an array of tasks in, their results and errors out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..pipelines.errors import RequestError
from . import answers, guard, wire
from .service import Service
from .tasks import Reply, Tasks

DRY_RUN = "X-Runware-Dry-Run"

LONGEST_WAIT = 3600.0
"""Seconds that an answer waits for its results; they are made all the same, and can be asked for."""

_STATUS = {
    "missingApiKey": 401,
    "invalidApiKey": 401,
    "valueTooLarge": 413,
    "rateLimitExceeded": 429,
    "internalServerError": 500,
    "taskFailedOrNotFound": 404,
}


class Endpoint:
    """Answers POST requests."""

    def __init__(self, service: Service, tasks: Tasks):
        self._service = service
        self._tasks = tasks

    async def post(self, request: web.Request) -> web.Response:
        if guard.is_foreign(request):
            return refused_origin()
        try:
            given = await asyncio.to_thread(wire.read, await body(request))
            base = guard.base_of(request)
            logins, given = parted(given)
            guard.admit(key_of(logins, request))
        except Exception as error:
            return _answer([], answers.errors(answers.faults_of(error), {}))
        replies = [Reply([{"taskType": "authentication"}]) for _ in logins]
        for task in given:
            replies.append(await self._tasks.take(task, base, is_dry(request)))
        await asyncio.gather(*(self._follow(reply) for reply in replies))
        data = [one for reply in replies for one in reply.data]
        return _answer(data, [error for reply in replies for error in reply.errors])

    async def _follow(self, reply: Reply) -> None:
        """Adds the results of a task whose client waits for them."""
        if reply.awaited is None or reply.is_async:
            return
        try:
            await asyncio.wait_for(self._collect(reply), LONGEST_WAIT)
        except asyncio.TimeoutError:
            told = "The results take longer than an answer may wait: ask for them with getResponse."
            error = RequestError("timeoutProvider", told, "taskUUID")
            reply.errors += answers.errors(error.faults, reply.awaited.wire)

    async def _collect(self, reply: Reply) -> None:
        task = reply.awaited
        assert task is not None
        done = []
        async for item in self._service.results(task.uuid):
            if item.state == "done":
                done.append((item.number, await asyncio.to_thread(self._tasks.told, task, item)))
            else:
                reply.errors += item.answer
        reply.data += [told for _, told in sorted(done, key=lambda one: one[0])]


def is_dry(request: web.Request) -> bool:
    """Whether tasks are to be checked alone."""
    return request.headers.get(DRY_RUN, "") not in ("", "0") or request.query.get("dryRun") == "1"


def parted(given: list[Any]) -> tuple[list[Mapping[str, Any]], list[Any]]:
    """The tasks of authentication, and the others."""
    logins: list[Mapping[str, Any]] = []
    others: list[Any] = []
    for task in given:
        is_login = isinstance(task, Mapping) and task.get("taskType") == "authentication"
        (logins if is_login else others).append(task)
    return logins, others


def key_of(logins: list[Mapping[str, Any]], request: web.Request) -> str | None:
    """The API key that came last: in a task of authentication, else in the request's header."""
    keys = [login["apiKey"] for login in logins if isinstance(login.get("apiKey"), str)]
    return keys[-1] if keys else guard.bearer(request)


def refused_origin() -> web.Response:
    told = "Pages of other sites may not use this server."
    error = RequestError("forbiddenOrigin", told, "Origin")
    return refused(error, 403)


def refused(error: RequestError, status: int, **options: Any) -> web.Response:
    """The answer to what is no task, or came by a way that is none."""
    return web.json_response({"errors": answers.errors(error.faults, {})}, status=status, **options)


async def body(request: web.Request) -> bytes:
    """The bytes that came. Raises RequestError where they are too many, or not all there."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        told = f"The body is too large ({error.text}); ComfyUI's option --max-upload-size sets how large it may be."
        raise RequestError("valueTooLarge", told, "body") from None
    except (web.RequestPayloadError, ValueError):
        told = "The body can't be read: it is cut off, or not encoded as its headers say."
        raise RequestError("invalidRequest", told, "body") from None


def _answer(data: list[dict[str, Any]], errors: list[dict[str, Any]]) -> web.Response:
    """Data, errors or both; an empty array of errors would be one to the published clients."""
    told = {"data": data} if data or not errors else {}
    if errors:
        told["errors"] = errors
    status = 200
    if errors and not data:
        status = next((_STATUS[error["code"]] for error in errors if error["code"] in _STATUS), 400)
    return web.json_response(told, status=status)
