"""The paths under which ComfyUI's server answers for the pack."""

from __future__ import annotations

import asyncio
import inspect
import json
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ..host import server
from ..pipelines.errors import RequestError
from . import answers, assist, editor, guard, home, openapi, settings
from .endpoint import Endpoint, body, refused, refused_origin
from .models import KINDS
from .sender import Sender
from .service import Service
from .sockets import Sockets
from .tasks import Tasks

ROOT = "/sd3local"

PRESETS = "sd3local/presets"
"""The folder of a user's presets in ComfyUI's userdata, which the editor itself reads and writes there."""

ASKED: dict[str, Callable[[Any], Any]] = {
    "/presets/check": editor.judged,
    "/graph": editor.imported,
    "/request": editor.exported_graph,
    "/pictures": editor.kept,
    "/pictures/told": editor.told_by,
    "/check": assist.judged,
    "/tokens": assist.tokens,
}
"""What it asks, as JSON. It may whoever may queue graphs."""


def register() -> None:
    """Adds the routes, and lets the endpoint's work begin with the server."""
    host = PromptServer.instance
    routes, running = host.routes, _Running()
    host.app.on_startup.append(running.start)
    host.app.on_cleanup.append(running.stop)

    @routes.post(f"{ROOT}/v1")
    async def post(request: web.Request) -> web.StreamResponse:
        return await running.endpoint.post(request)

    @routes.get(f"{ROOT}/v1")
    async def connect(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            told = "This address takes POST requests and WebSockets; openapi.json beside it says more."
            error = RequestError("invalidRequest", told, "method")
            return refused(error, 405, headers={"Allow": "POST"})
        return await running.sockets.connect(request)

    @routes.get(f"{ROOT}/images/{{name}}")
    async def image(request: web.Request) -> web.StreamResponse:
        return await _image(request.match_info["name"])

    @routes.get(f"{ROOT}/openapi.json")
    async def document(request: web.Request) -> web.Response:
        return web.json_response(openapi.document(guard.base_of(request)))

    @routes.get(f"{ROOT}/models")
    async def models(request: web.Request) -> web.Response:
        return await _managed(request, _models)

    @routes.put(f"{ROOT}/models")
    async def save_models(request: web.Request) -> web.Response:
        return await _managed(request, home.models().save, takes_json=True)

    @routes.get(f"{ROOT}/settings")
    async def get_settings(request: web.Request) -> web.Response:
        return await _managed(request, lambda: home.settings().get().told())

    @routes.put(f"{ROOT}/settings")
    async def save_settings(request: web.Request) -> web.Response:
        return await _managed(request, _save_settings, takes_json=True)

    @routes.get(f"{ROOT}/presets")
    async def presets(request: web.Request) -> web.Response:
        return await _answered(request, partial(editor.presets, server.user_files(request, PRESETS)))

    @routes.get(f"{ROOT}/state")
    async def state(request: web.Request) -> web.Response:
        return await _answered(request, editor.state)

    for path, do in ASKED.items():
        routes.post(ROOT + path)(partial(_answered, do=do, takes_json=True))


class _Running:
    """The endpoint's parts, from the server's start to its end."""

    endpoint: Endpoint
    sockets: Sockets

    async def start(self, app: web.Application) -> None:
        store = await asyncio.to_thread(home.store)
        service = Service(store)
        tasks = Tasks(service)
        self.endpoint, self.sockets = Endpoint(service, tasks), Sockets(service, tasks)
        await service.recover()
        self._work = [asyncio.create_task(service.run()), asyncio.create_task(Sender(store).run())]

    async def stop(self, app: web.Application) -> None:
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)


async def _image(name: str) -> web.StreamResponse:
    """A picture. Who has its name may see it, as with the hosted API: a UUID can't be guessed."""
    try:
        picture = await asyncio.to_thread(home.store().picture, str(uuid.UUID(Path(name).stem)))
    except ValueError:
        picture = None
    # The editor knows a picture's UUID alone.
    named = picture is not None and name in (picture.name, picture.uuid)
    path = home.store().path(picture) if named else None
    if path is None or not path.is_file():
        told = "There is no such picture, or none any more."
        return web.Response(status=404, text=told, headers={"Cache-Control": "no-store"})
    headers = {
        "Content-Type": answers.MEDIA_TYPES[path.suffix[1:]],
        "X-Content-Type-Options": "nosniff",
        # Once its time is over it must be gone for those, too, who have seen it.
        "Cache-Control": "no-cache",
    }
    return web.FileResponse(path, headers=headers)


async def _managed(request: web.Request, do: Callable[..., Any], takes_json: bool = False) -> web.Response:
    """A route of the settings panel, which not everyone may use who uses ComfyUI."""
    return await _answered(request, do, takes_json, guard.admit_editor)


async def _answered(
    request: web.Request,
    do: Callable[..., Any],
    takes_json: bool = False,
    admit: Callable[[web.Request], None] = lambda request: None,
) -> web.Response:
    """A route of the editor: what `do` gives, or the errors that it raises."""
    if guard.is_foreign(request):
        return refused_origin()
    try:
        admit(request)
        given = [await _json(request)] if takes_json else []
        told = await (do(*given) if inspect.iscoroutinefunction(do) else asyncio.to_thread(do, *given))
    except RequestError as error:
        return refused(error, 401 if error.faults[0].parameter == "apiKey" else 400)
    return web.Response(status=204) if told is None else web.json_response(told)


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await body(request))
    except RequestError:
        raise
    except (ValueError, RecursionError):
        raise RequestError("invalidRequest", "The body is no JSON.", "body") from None


def _models() -> dict[str, Any]:
    files = {kind: sorted({file for _, file in home.models().offered(kind)}) for kind in KINDS}
    return {"table": home.models().entries(), "files": files}


def _save_settings(given: Any) -> None:
    home.settings().save(settings.checked(given))
