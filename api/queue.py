"""ComfyUI's own queue, as any client of ComfyUI uses it: over HTTP and a WebSocket."""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

HISTORY_ERRORS = ("execution_error", "execution_interrupted")


class QueueRefused(Exception):
    """ComfyUI did not take a prompt, for what it said in `body`."""

    def __init__(self, body: Any):
        super().__init__(str(body)[:500])
        self.body = body


class ComfyQueue:
    """Queues prompts at the server at `url`, and hears of them. Every method may raise aiohttp.ClientError."""

    def __init__(self, url: str):
        # The server's own certificate need not be one that this machine trusts: it is this very process.
        trust = ssl._create_unverified_context() if url.startswith("https:") else None
        self._client = uuid.uuid4().hex
        self._session = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(ssl=trust) if trust is not None else None,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def close(self) -> None:
        await self._session.close()

    async def put(self, prompt_id: str, graph: Mapping[str, Any]) -> None:
        """Queues a graph. Raises QueueRefused."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self._client}
        async with self._session.post("/prompt", json=body) as answer:
            if answer.status != 200:
                raise QueueRefused(await answer.json(content_type=None) if answer.status == 400 else answer.status)

    async def queued(self) -> set[str]:
        """The prompts that run or wait."""
        async with self._session.get("/queue") as answer:
            answer.raise_for_status()
            queue = await answer.json()
        return {entry[1] for entry in (*queue["queue_running"], *queue["queue_pending"])}

    async def ended(self, prompt_id: str) -> list[tuple[str, Mapping[str, Any]]] | None:
        """The messages about a prompt in ComfyUI's history; None where it is not there."""
        async with self._session.get(f"/history/{prompt_id}") as answer:
            answer.raise_for_status()
            entry = (await answer.json()).get(prompt_id)
        if entry is None:
            return None
        return [(kind, data) for kind, data in (entry.get("status") or {}).get("messages", ())]

    async def events(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """What ComfyUI says of this client's prompts, until the connection ends."""
        async with self._session.ws_connect(
            "/ws", params={"clientId": self._client}, max_msg_size=0, heartbeat=30
        ) as socket:
            async for message in socket:
                # Binary messages are previews.
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    yield event["type"], event.get("data") or {}
