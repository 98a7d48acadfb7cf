"""What must not be lost: accepted tasks, their results, pictures, and what is still to be sent, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..pipelines.errors import RequestError

SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    uuid TEXT PRIMARY KEY, wire TEXT NOT NULL, base TEXT NOT NULL, accepted REAL NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    uuid TEXT PRIMARY KEY, task TEXT NOT NULL REFERENCES task(uuid) ON DELETE CASCADE, number INTEGER NOT NULL,
    seed INTEGER, state TEXT NOT NULL, starts INTEGER NOT NULL DEFAULT 0, answer TEXT, ended REAL);
CREATE INDEX IF NOT EXISTS item_task ON item(task);
CREATE INDEX IF NOT EXISTS item_state ON item(state);
CREATE TABLE IF NOT EXISTS picture (
    uuid TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, used REAL NOT NULL, expires REAL);
CREATE INDEX IF NOT EXISTS picture_expires ON picture(expires);
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS pace (model TEXT PRIMARY KEY, seconds REAL NOT NULL);
"""
VERSION = 1

State = Literal["waiting", "done", "failed"]
PictureKind = Literal["result", "upload", "input"]


@dataclass(frozen=True)
class Task:
    """An accepted task: its request, in which models are files and pictures are UUIDs, and what its URLs begin with."""

    uuid: str
    wire: Mapping[str, Any]
    base: str


@dataclass(frozen=True)
class Item:
    """One result of a task, asked for or there. `uuid` is the picture's, and of the prompt in ComfyUI's queue.

    `answer` is what the API says of a result without its picture, or the list of errors of one that failed.
    """

    uuid: str
    task: str
    number: int
    seed: int | None
    state: State = "waiting"
    starts: int = 0
    answer: Any = None


@dataclass(frozen=True)
class StoredPicture:
    """A file that clients know by its UUID; `name` is the file's in the folder of its kind.

    `kind`: a result, an upload, or an input that came in a request. `expires` is in seconds since 1970.
    """

    uuid: str
    name: str
    kind: PictureKind
    expires: float | None = None


@dataclass(frozen=True)
class Delivery:
    """Something to send: for an upload `body` is the picture's UUID, for a webhook the JSON text."""

    kind: Literal["upload", "webhook"]
    url: str
    body: str
    id: int = 0
    tries: int = 0


def conflict(task: str) -> RequestError:
    """The error of a second task with the UUID of an earlier one."""
    told = f"taskUUID {task} was used before: give each task a fresh UUID v4."
    return RequestError("conflictTaskUUID", told, "taskUUID")


class Store:
    """The database; its methods may be called from any thread, and each is one transaction. `folders` is where the
    pictures of each kind lie.
    """

    def __init__(self, file: Path, folders: Mapping[PictureKind, Path]):
        file.parent.mkdir(parents=True, exist_ok=True)
        self._folders = folders
        self.changed: Callable[[], None] = lambda: None
        """Called when there is something new to send or to delete at its time."""
        self._lock = threading.RLock()
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        # FULL: what was accepted outlives a power cut as well as a crash.
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        written = self._db.execute("PRAGMA user_version").fetchone()[0]
        if written > VERSION:
            self._db.close()
            raise RuntimeError(f"{file} was written by a newer SD3 Local: update the pack, or move the file away.")
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # Tasks and their items

    def accept(self, task: Task, items: Sequence[Item], most_waiting: int) -> None:
        """Takes a task with its items. Raises RequestError for a taskUUID that was used before, and where more than
        `most_waiting` results would wait.
        """
        with self._transaction() as db:
            waiting = db.execute("SELECT count(*) FROM item WHERE state = 'waiting'").fetchone()[0]
            if waiting + sum(item.state == "waiting" for item in items) > most_waiting:
                told = f"{waiting} results wait already, and {most_waiting} may: try again when some are done."
                raise RequestError("rateLimitExceeded", told, "numberResults", max=most_waiting)
            row = (task.uuid, json.dumps(task.wire), task.base, time.time())
            try:
                db.execute("INSERT INTO task VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise conflict(task.uuid) from None
            for item in items:
                ended = None if item.state == "waiting" else time.time()
                row = (item.uuid, task.uuid, item.number, item.seed, item.state, 0, json.dumps(item.answer), ended)
                db.execute("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def has_task(self, uuid: str) -> bool:
        return bool(self._all("SELECT 1 FROM task WHERE uuid = ?", uuid))

    def task(self, uuid: str) -> Task | None:
        found = self._all("SELECT * FROM task WHERE uuid = ?", uuid)
        return _task(found[0]) if found else None

    def items(self, task: str) -> list[Item]:
        """The results of a task, in the order of their seeds."""
        return [_item(row) for row in self._all("SELECT * FROM item WHERE task = ? ORDER BY number", task)]

    def item(self, uuid: str) -> Item | None:
        found = self._all("SELECT * FROM item WHERE uuid = ?", uuid)
        return _item(found[0]) if found else None

    def waiting(self) -> list[Item]:
        """All results that are still to be made, those of the oldest task first."""
        query = "SELECT item.* FROM item JOIN task ON task.uuid = task WHERE state = 'waiting'"
        return [_item(row) for row in self._all(query + " ORDER BY accepted, task.rowid, number")]

    def start(self, item: str) -> None:
        """Counts a run of the item that began."""
        with self._transaction() as db:
            db.execute("UPDATE item SET starts = starts + 1 WHERE uuid = ?", (item,))

    def end(
        self,
        item: str,
        state: Literal["done", "failed"],
        answer: Any,
        deliveries: Iterable[Delivery] = (),
        picture: StoredPicture | None = None,
    ) -> bool:
        """Ends an item, with its picture and with what is to be sent of it. False: it had ended before, and nothing
        was changed.
        """
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE item SET state = ?, answer = ?, ended = ? WHERE uuid = ? AND state = 'waiting'",
                (state, json.dumps(answer), time.time(), item),
            ).rowcount
            if changed:
                _add(db, picture, deliveries)
        self.changed()
        return bool(changed)

    def prune(self, ended_before: float) -> None:
        """Drops tasks of which nothing happened since, and what could not be sent before then."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM task WHERE accepted < ?1 AND NOT EXISTS (SELECT 1 FROM item WHERE task = task.uuid AND "
                "(state = 'waiting' OR ended >= ?1))",
                (ended_before,),
            )
            db.execute("DELETE FROM delivery WHERE error IS NOT NULL AND due < ?", (ended_before,))

    # Pictures

    def add(self, picture: StoredPicture | None, deliveries: Iterable[Delivery] = ()) -> None:
        """Takes a picture, or replaces what its UUID stood for, with what is to be sent of it."""
        with self._transaction() as db:
            _add(db, picture, deliveries)
        self.changed()

    def picture(self, uuid: str) -> StoredPicture | None:
        """A picture that has not expired."""
        found = self._all("SELECT * FROM picture WHERE uuid = ?", uuid)
        if not found or (found[0]["expires"] is not None and found[0]["expires"] <= time.time()):
            return None
        return _picture(found[0])

    def path(self, picture: StoredPicture) -> Path:
        """Where the file of a picture is, or is to be."""
        return self._folders[picture.kind] / picture.name

    def picture_path(self, uuid: str) -> Path | None:
        """The file of a picture that has not expired."""
        picture = self.picture(uuid)
        return self.path(picture) if picture is not None else None

    def use(self, uuid: str, expires: float | None) -> None:
        """Notes that a picture is used; one that is no result is kept until `expires`, unless it is for ever."""
        with self._transaction() as db:
            db.execute(
                "UPDATE picture SET used = ?, expires = CASE WHEN kind = 'result' OR expires IS NULL THEN expires "
                "ELSE ? END WHERE uuid = ?",
                (time.time(), expires, uuid),
            )

    def expired(self) -> list[StoredPicture]:
        return [_picture(row) for row in self._all("SELECT * FROM picture WHERE expires <= ?", time.time())]

    def next_expiry(self) -> float | None:
        return self._all("SELECT min(expires) FROM picture")[0][0]

    def forget(self, picture: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM picture WHERE uuid = ?", (picture,))

    # What is to be sent

    def due(self) -> list[Delivery]:
        """What is to be sent by now, the longest due first."""
        query = "SELECT * FROM delivery WHERE error IS NULL AND due <= ? ORDER BY due, id"
        return [_delivery(row) for row in self._all(query, time.time())]

    def next_due(self) -> float | None:
        return self._all("SELECT min(due) FROM delivery WHERE error IS NULL")[0][0]

    def sent(self, delivery: int) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM delivery WHERE id = ?", (delivery,))

    def postpone(self, delivery: int, due: float) -> None:
        """After a failed try: the next one."""
        with self._transaction() as db:
            db.execute("UPDATE delivery SET tries = tries + 1, due = ? WHERE id = ?", (due, delivery))

    def give_up(self, delivery: int, error: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE delivery SET tries = tries + 1, error = ? WHERE id = ?", (error, delivery))

    # How fast models are

    def note_pace(self, model: str, seconds: float, work: float) -> None:
        """Notes that `model` took `seconds` for `work`, whatever that counts."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (model, seconds / work))

    def pace(self, model: str) -> float | None:
        """Seconds for one of what `note_pace` counted, when the model was last run."""
        found = self._all("SELECT seconds FROM pace WHERE model = ?", model)
        return found[0][0] if found else None


def _add(db: sqlite3.Connection, picture: StoredPicture | None, deliveries: Iterable[Delivery]) -> None:
    if picture is not None:
        row = (picture.uuid, picture.name, picture.kind, time.time(), picture.expires)
        db.execute("INSERT OR REPLACE INTO picture VALUES (?, ?, ?, ?, ?)", row)
    for one in deliveries:
        row = (one.kind, one.url, one.body, time.time())
        db.execute("INSERT INTO delivery (kind, url, body, due) VALUES (?, ?, ?, ?)", row)


def _task(row: sqlite3.Row) -> Task:
    return Task(row["uuid"], json.loads(row["wire"]), row["base"])


def _item(row: sqlite3.Row) -> Item:
    answer = json.loads(row["answer"]) if row["answer"] is not None else None
    return Item(row["uuid"], row["task"], row["number"], row["seed"], row["state"], row["starts"], answer)


def _picture(row: sqlite3.Row) -> StoredPicture:
    return StoredPicture(row["uuid"], row["name"], row["kind"], row["expires"])


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(row["kind"], row["url"], row["body"], row["id"], row["tries"])
