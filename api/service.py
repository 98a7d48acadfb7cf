"""Accepted tasks on their way through ComfyUI's queue: nothing accepted is forgotten, and each item ends once."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from ..host import server
from ..pipelines.errors import Fault
from . import answers, failures
from .delivery import webhook
from .graph import to_graph
from .intake import item_request
from .queue import HISTORY_ERRORS, ComfyQueue, QueueRefused
from .store import Item, Store, Task

MOST_WAITING = 1000
MOST_STARTS = 5
"""Runs of an item that ComfyUI did not live to see the end of, after which it is given up."""

LOOK_EVERY = 2.0
"""Seconds between looks at ComfyUI's queue for prompts that ended without a word, such as those taken out of it."""

RETRY = 0.2
"""Seconds until the server is tried again, such as while it starts."""

log = logging.getLogger(__name__)


class Service:
    """Queues what the store has waiting, and tells who waits for a task of each item that ended."""

    _queue: ComfyQueue

    def __init__(self, store: Store):
        self._store = store
        self._to_post: asyncio.Queue[str] = asyncio.Queue()
        self._posted: dict[str, bool] = {}
        """Items that were posted, and whether ComfyUI confirmed it."""
        self._watchers: dict[str, set[asyncio.Queue[Item]]] = defaultdict(set)
        self.progress: dict[str, int] = {}
        """Item -> percent of its steps that are done."""

    async def recover(self) -> None:
        """Takes up what waited when the last process ended; to be done before any task is accepted."""
        # Those that more than one process did not outlive come last: if they are why, others come before the next end.
        waiting = sorted(await asyncio.to_thread(self._store.waiting), key=lambda item: max(item.starts, 1))
        for item in waiting:
            if item.starts >= MOST_STARTS:
                await self._fail(item.uuid, [failures.CRASHED])
            else:
                self._to_post.put_nowait(item.uuid)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while not server.is_listening():
            await asyncio.sleep(RETRY)
        self._queue = ComfyQueue(server.own_url())
        try:
            await asyncio.gather(*(_forever(part) for part in (self._post, self._listen, self._look)))
        finally:
            await self._queue.close()

    async def accept(self, task: Task, items: Sequence[Item]) -> None:
        """Takes a task. Raises RequestError where its UUID is known, or too much waits."""
        await asyncio.to_thread(self._store.accept, task, items, MOST_WAITING)
        for item in items:
            self._to_post.put_nowait(item.uuid)

    async def results(self, task: str) -> AsyncIterator[Item]:
        """The items of a task as they end, those first that have ended."""
        heard: asyncio.Queue[Item] = asyncio.Queue()
        self._watchers[task].add(heard)
        try:
            items = await asyncio.to_thread(self._store.items, task)
            left = {item.uuid for item in items}
            for item in items:
                if item.state != "waiting":
                    left.discard(item.uuid)
                    yield item
            while left:
                item = await heard.get()
                if item.uuid in left:
                    left.discard(item.uuid)
                    yield item
        finally:
            self._watchers[task].discard(heard)
            if not self._watchers[task]:
                del self._watchers[task]

    async def _post(self) -> None:
        """Hands the next item to ComfyUI, in the order in which they came."""
        uuid = await self._to_post.get()
        item, task = await self._found(uuid)
        if task is None or item.state != "waiting":
            return
        try:
            graph = to_graph(item_request(task, item))
        except Exception as error:
            # Written by another version, perhaps; whatever it is, it will not get better.
            log.exception("SD3 Local's endpoint: the graph of item %s", uuid)
            await self._fail(uuid, answers.faults_of(error))
            return
        self._posted[uuid] = False
        while True:
            try:
                await self._queue.put(uuid, graph)
                break
            except QueueRefused as refused:
                await self._fail(uuid, failures.of_refusal(refused.body))
                return
            except (aiohttp.ClientError, asyncio.TimeoutError):
                await asyncio.sleep(RETRY)
                if await self._is_queued(uuid):
                    break
        # It may have ended by now, and then it is no longer among them.
        if uuid in self._posted:
            self._posted[uuid] = True

    async def _is_queued(self, uuid: str) -> bool:
        """Whether ComfyUI took a prompt although it did not say so; false where it can't be asked."""
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            return uuid in await self._queue.queued() or await self._queue.ended(uuid) is not None
        return False

    async def _listen(self) -> None:
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            async for kind, data in self._queue.events():
                prompt = data.get("prompt_id")
                if prompt in self._posted:
                    await self._hear(prompt, kind, data)
        await asyncio.sleep(RETRY)

    async def _hear(self, item: str, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "execution_start":
            await asyncio.to_thread(self._store.start, item)
        elif kind == "progress" and data.get("max"):
            self.progress[item] = int(100 * data["value"] / data["max"])
        elif kind in ("executed", "execution_success"):
            await self._settle(item, [failures.LOST] if kind == "execution_success" else None)
        elif kind in HISTORY_ERRORS:
            await self._fail(item, failures.of_event(kind, data))

    async def _look(self) -> None:
        """Finds out what became of items of which nothing was heard."""
        await asyncio.sleep(LOOK_EVERY)
        posted = {uuid for uuid, confirmed in self._posted.items() if confirmed}
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            for uuid in posted - await self._queue.queued():
                messages = await self._queue.ended(uuid)
                if messages is None:
                    await self._settle(uuid, [failures.CANCELLED])
                else:
                    bad = [failures.of_event(kind, data) for kind, data in messages if kind in HISTORY_ERRORS]
                    await self._settle(uuid, bad[0] if bad else [failures.LOST])

    async def _settle(self, uuid: str, otherwise: Iterable[Fault] | None) -> None:
        """Tells of an item that ended; one that did not, although its run did, fails for the reason `otherwise`."""
        item = await asyncio.to_thread(self._store.item, uuid)
        if item is not None and item.state != "waiting":
            self._tell(item)
        elif otherwise is not None:
            await self._fail(uuid, otherwise)

    async def _fail(self, uuid: str, faults: Iterable[Fault]) -> None:
        _, task = await self._found(uuid)
        if task is None:
            return
        told = answers.errors(faults, task.wire)
        url = task.wire.get("webhookURL")
        sends = [webhook(url, error, failed=True) for error in told] if url else []
        await asyncio.to_thread(self._store.end, uuid, "failed", told, sends)
        await self._settle(uuid, None)

    async def _found(self, uuid: str) -> tuple[Item, Task] | tuple[None, None]:
        """An item and its task, as long as they are remembered."""
        item = await asyncio.to_thread(self._store.item, uuid)
        task = await asyncio.to_thread(self._store.task, item.task) if item is not None else None
        return (None, None) if item is None or task is None else (item, task)

    def _tell(self, item: Item) -> None:
        self._posted.pop(item.uuid, None)
        self.progress.pop(item.uuid, None)
        for heard in self._watchers.get(item.task, ()):
            heard.put_nowait(item)


async def _forever(part: Callable[[], Awaitable[None]]) -> None:
    """Does `part` again and again: what goes wrong once must not stop what comes after it."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("SD3 Local's endpoint: %s", part.__name__)
            await asyncio.sleep(RETRY)
