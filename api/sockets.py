"""The endpoint over a WebSocket: results come as they are finished, and wait for a client that lost its connection."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from ..host import server
from ..pipelines.errors import RequestError
from . import answers, guard, wire
from .endpoint import is_dry, key_of, parted, refused_origin
from .service import Service
from .tasks import Reply, Tasks

IDLE = 120.0
"""Seconds without a message after which a connection is closed, and for which results wait for a client to return."""

AT_ONCE = 64
"""Messages of one connection that may be worked on at the same time."""


class Session:
    """What one client is to be sent, over one connection after the other."""

    def __init__(self) -> None:
        self.uuid = str(uuid.uuid4())
        self.is_admitted = False
        self._socket: web.WebSocketResponse | None = None
        self._unsent: list[dict[str, Any]] = []
        self._sending = asyncio.Lock()

    async def attach(self, socket: web.WebSocketResponse) -> None:
        """Sends over `socket` from now on, and first what has waited for it."""
        self._socket = socket
        async with self._sending:
            waiting, self._unsent = self._unsent, []
        for message in waiting:
            await self.send(message)

    def detach(self, socket: web.WebSocketResponse) -> None:
        if self._socket is socket:
            self._socket = None

    @property
    def is_attached(self) -> bool:
        return self._socket is not None

    async def send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            socket = self._socket
            try:
                if socket is None or socket.closed:
                    raise ConnectionResetError
                await socket.send_str(json.dumps(message))
            except ConnectionError:
                self._unsent.append(message)


class Sockets:
    """Answers WebSocket connections."""

    def __init__(self, service: Service, tasks: Tasks):
        self._service = service
        self._tasks = tasks
        self._sessions: dict[str, Session] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        if guard.is_foreign(request):
            return refused_origin()
        socket = web.WebSocketResponse(max_msg_size=server.most_upload_bytes(), heartbeat=30)
        await socket.prepare(request)
        connection = _Connection(self, request, socket)
        await connection.session.attach(socket)
        try:
            while not socket.closed:
                message = await socket.receive(timeout=IDLE)
                if message.type == WSMsgType.TEXT:
                    await connection.hear(message.data)
                elif message.type not in (WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                    break
        except asyncio.TimeoutError:
            await socket.close(message=b"idle")
        finally:
            connection.session.detach(socket)
            self.go_on(self._forget(connection.session))
        return socket

    def session(self, name: object) -> Session | None:
        """The session that a client had, if it is still there."""
        return self._sessions.get(name) if isinstance(name, str) else None

    def keep(self, session: Session) -> None:
        self._sessions[session.uuid] = session

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _forget(self, session: Session) -> None:
        await asyncio.sleep(IDLE)
        if not session.is_attached:
            self._sessions.pop(session.uuid, None)

    async def take(self, session: Session, task: Any, base: str, dry: bool) -> None:
        """Takes one task, and sends what comes of it."""
        reply = await self._tasks.take(task, base, dry)
        await self.reply(session, reply)
        if reply.awaited is not None:
            await self._follow(session, reply)

    async def reply(self, session: Session, reply: Reply) -> None:
        # Two messages, since in one that has errors published clients look at nothing else; and the errors first, since
        # some of them take a task's first message for the whole answer.
        if reply.errors:
            await session.send({"errors": reply.errors})
        if reply.data:
            await session.send({"data": reply.data})

    async def _follow(self, session: Session, reply: Reply) -> None:
        # Results of an async task are sent too: a published client that has only the polls takes one picture twice.
        task = reply.awaited
        assert task is not None
        async for item in self._service.results(task.uuid):
            if item.state == "done":
                told = await asyncio.to_thread(self._tasks.told, task, item)
                await session.send({"data": [told | ({"status": "success"} if reply.is_async else {})]})
            elif not reply.is_async:
                await session.send({"errors": item.answer})


class _Connection:
    """One WebSocket, with the session that it belongs to."""

    def __init__(self, sockets: Sockets, request: web.Request, socket: web.WebSocketResponse):
        self.session = Session()
        self._sockets = sockets
        self._request = request
        self._socket = socket
        self._free = asyncio.Semaphore(AT_ONCE)

    async def hear(self, text: str) -> None:
        """One message; its tasks are worked on beside whatever else comes."""
        try:
            logins, others = parted(await asyncio.to_thread(wire.read, text))
            await self._admit(logins)
            base = guard.base_of(self._request)
        except Exception as error:
            await self._refuse(error)
            return
        for task in others:
            await self._free.acquire()
            self._sockets.go_on(self._take(task, base))

    async def _take(self, task: Any, base: str) -> None:
        try:
            await self._sockets.take(self.session, task, base, is_dry(self._request))
        finally:
            self._free.release()

    async def _admit(self, logins: list[Mapping[str, Any]]) -> None:
        if logins or not self.session.is_admitted:
            guard.admit(key_of(logins, self._request))
            self.session.is_admitted = True
        if not logins:
            return
        earlier = self._sockets.session(logins[0].get("connectionSessionUUID"))
        if earlier is not None and earlier is not self.session and not earlier.is_attached:
            self.session.detach(self._socket)
            self.session = earlier
        # Only a client that was told of its session can come back to it.
        self._sockets.keep(self.session)
        # Told first: results that waited are for a client that knows that it is in.
        told = {"taskType": "authentication", "connectionSessionUUID": self.session.uuid}
        await self._socket.send_str(json.dumps({"data": [told]}))
        await self.session.attach(self._socket)

    async def _refuse(self, error: Exception) -> None:
        faults = answers.faults_of(error)
        is_key = isinstance(error, RequestError) and faults[0].parameter == "apiKey"
        told = answers.errors(faults, {"taskType": "authentication"} if is_key else {})
        # One of the published clients reads only `error`.
        await self.session.send({"errors": told, "error": told[0]} if is_key else {"errors": told})
