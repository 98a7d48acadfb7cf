"""What is to be sent or deleted at its time: uploads, webhooks, pictures whose time is over."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from . import answers, home
from .files import remove_parts
from .intake import INPUTS_KEPT
from .network import Failed, Network, Refused, host_of
from .store import Delivery, Store, StoredPicture

WEBHOOK_TIMEOUT = 5.0
UPLOAD_TIMEOUT = 60.0
FIRST_DELAY, LONGEST_DELAY = 0.25, 600.0
"""Seconds until a failed delivery is tried again: doubled from one try to the next."""
MOST_TRIES = 20
"""With these delays, an hour and a half of trying."""

AT_ONCE, AT_ONCE_PER_HOST = 16, 2
"""Deliveries under way; a host that hangs must not keep others waiting."""

KEPT = 30 * 86400.0
"""Seconds for which ended tasks are remembered."""
PRUNE_EVERY = 3600.0

SLEEP = 30.0

log = logging.getLogger(__name__)


class Sender:
    """Sends what the store has due, and deletes what it has expired."""

    def __init__(self, store: Store):
        self._store = store
        self._under_way: dict[int, str] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pruned = 0.0

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        loop = asyncio.get_running_loop()
        # Nodes put things down in a thread of their own.
        self._store.changed = lambda: loop.call_soon_threadsafe(self._wake.set)
        for kind in ("result", "upload"):
            folder = self._store.path(StoredPicture("", "", kind))
            await asyncio.to_thread(remove_parts, folder)
        while True:
            self._wake.clear()
            try:
                await asyncio.to_thread(self._delete)
                await self._send()
                due = await asyncio.to_thread(self._next)
            except Exception:
                log.exception("SD3 Local's endpoint: sending and deleting")
                due = time.time() + FIRST_DELAY
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(max(due - time.time(), 0.01), SLEEP))

    def _next(self) -> float:
        """When there is something to do next, unless a delivery ends before, which wakes the loop too."""
        # What is due and can't be sent yet waits for one that is under way.
        due = None if self._under_way else self._store.next_due()
        times = [when for when in (due, self._store.next_expiry()) if when is not None]
        return min([*times, time.time() + (1.0 if self._under_way else SLEEP)])

    async def _send(self) -> None:
        hosts = Counter(self._under_way.values())
        for one in await asyncio.to_thread(self._store.due):
            host = host_of(one.url)
            if one.id in self._under_way or hosts[host] >= AT_ONCE_PER_HOST or len(self._under_way) >= AT_ONCE:
                continue
            hosts[host] += 1
            self._under_way[one.id] = host
            task = asyncio.create_task(self._deliver(one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, one: Delivery) -> None:
        try:
            await self._try(one)
        except Exception as error:
            await asyncio.to_thread(self._failed, one, error)
        else:
            await asyncio.to_thread(self._store.sent, one.id)
        finally:
            del self._under_way[one.id]
            self._wake.set()

    async def _try(self, one: Delivery) -> None:
        network = Network(home.settings().get().allowedHosts)
        if one.kind == "webhook":
            headers = {"Content-Type": "application/json"}
            await network.send("POST", one.url, one.body.encode(), headers, WEBHOOK_TIMEOUT)
            return
        path = self._store.picture_path(one.body)
        if path is None:
            raise Refused("the picture's time was over before it was uploaded")
        content = await asyncio.to_thread(Path.read_bytes, path)
        headers = {"Content-Type": answers.MEDIA_TYPES[path.suffix[1:]]}
        await network.send("PUT", one.url, content, headers, UPLOAD_TIMEOUT)

    def _failed(self, one: Delivery, error: Exception) -> None:
        tries = one.tries + 1
        told = str(error) if isinstance(error, (Refused, Failed)) else type(error).__name__
        if isinstance(error, Refused) or tries >= MOST_TRIES:
            # Of the URL only the host: its path may hold a secret.
            log.warning("SD3 Local gave up a %s to %s: %s", one.kind, host_of(one.url), told)
            self._store.give_up(one.id, told)
        else:
            self._store.postpone(one.id, time.time() + delay(tries))

    def _delete(self) -> None:
        if expired := self._store.expired():
            tasks = {item.task for item in self._store.waiting()}
            wires = [str(task.wire) for task in map(self._store.task, tasks) if task is not None]
            for picture in expired:
                if picture.kind != "result" and any(picture.uuid in wire for wire in wires):
                    self._store.use(picture.uuid, time.time() + INPUTS_KEPT)
                else:
                    self._store.path(picture).unlink(missing_ok=True)
                    self._store.forget(picture.uuid)
        if time.time() >= self._pruned + PRUNE_EVERY:
            self._pruned = time.time()
            self._store.prune(self._pruned - KEPT)


def delay(tries: int) -> float:
    """Seconds to wait after so many failed tries, spread so that not all come back at once."""
    return min(FIRST_DELAY * 2 ** (tries - 1), LONGEST_DELAY) * random.uniform(0.8, 1.2)
