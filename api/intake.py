"""From a client's task to one that can be queued: checked, its models found, its pictures brought in."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ..pipelines.errors import Fault, RequestError
from ..pipelines.parse import dump, parse
from ..pipelines.request import ImageInference, random_seed
from . import home, pictures
from .files import write
from .models import Kind
from .network import Failed, Network, Refused
from .store import Item, StoredPicture, Task

UPLOADS_KEPT = 30 * 86400.0
"""Seconds after their last use until uploaded pictures are deleted."""

INPUTS_KEPT = 86400.0
"""The same for pictures that came in a request."""

MOST_PICTURES = 64
"""In one task: each may have to be fetched."""

_INPUTS = uuid.UUID("7d5b2d8e-1f38-4a4e-9a59-27a3c0a5a5b1")
"""The namespace of pictures that came in requests: the same bytes have the same UUID."""


def check(wire: Mapping[str, Any]) -> ImageInference:
    """The request of a task, with files for models. Raises RequestError with everything that can be known without
    loading or fetching anything.
    """
    faults: list[Fault] = []
    try:
        request = parse(wire)
    except RequestError as error:
        request, faults = None, [*error.faults]
    found: dict[str, str] = {}
    for path, kind, name in models_of(wire):
        # A name that is no text was judged above.
        if isinstance(name, str) and name:
            try:
                found[path] = home.models().find(name, kind, path)
            except RequestError as error:
                faults += error.faults
    given = [(path, text) for path, text in pictures_of(wire) if isinstance(text, str) and text]
    if len(given) > MOST_PICTURES:
        told = f"The task has {len(given)} pictures; at most {MOST_PICTURES} may come with one."
        faults.append(Fault("arrayTooLarge", told, "ipAdapters", {"maxItems": MOST_PICTURES}))
    for path, text in given[:MOST_PICTURES]:
        try:
            _known(text, path)
        except RequestError as error:
            faults += error.faults
    if faults or request is None:
        raise RequestError.of(faults)
    return parse(replaced(dump(request), found))


async def take(request: ImageInference, base: str, keep: bool = False) -> tuple[Task, list[Item]]:
    """A task and its items, with its pictures in the store, for ever where `keep` says so. Raises RequestError for
    pictures that can't be had.
    """
    wire = dump(request)
    given = dict(pictures_of(wire))
    paths: dict[str, str] = {}
    for path, text in given.items():
        # One that is named twice is brought in once.
        paths.setdefault(text, path)
    outcomes = await asyncio.gather(*(bring_in(*one, "input", keep) for one in paths.items()), return_exceptions=True)
    faults: list[Fault] = []
    for outcome in outcomes:
        if isinstance(outcome, RequestError):
            faults += outcome.faults
        elif isinstance(outcome, BaseException):
            raise outcome
    if faults:
        raise RequestError.of(faults)
    names = dict(zip(paths, outcomes, strict=True))
    wire = replaced(wire, {path: names[text] for path, text in given.items()})
    seed = random_seed() if request.seed is None else request.seed
    task = Task(request.task_uuid, {**wire, "seed": seed}, base)
    return task, [Item(str(uuid.uuid4()), task.uuid, i, seed + i) for i in range(request.number_results)]


def item_request(task: Task, item: Item) -> ImageInference:
    """The request of one result alone."""
    return parse({**task.wire, "numberResults": 1, "seed": item.seed})


async def bring_in(text: str, parameter: str, kind: str, keep: bool = False) -> str:
    """The UUID of a picture in the store that `text` refers to: by a UUID, by a URL from which it is fetched, or by its
    bytes; `keep` means for ever. Raises RequestError where it can't be had, or is no picture.
    """
    reference = await asyncio.to_thread(pictures.refer, text, parameter)
    if reference.kind == "url":
        reference = pictures.Reference("inline", text, await _fetched(text, parameter))
    return await asyncio.to_thread(_save, reference, parameter, kind, keep)


async def _fetched(url: str, parameter: str) -> bytes:
    try:
        return await Network(home.settings().get().allowedHosts).fetch(url, pictures.MOST_BYTES)
    except (Refused, Failed) as error:
        told = f"{parameter} can't be fetched: {error}."
        if isinstance(error, Refused):
            told += " A host of your own network must be among the setting allowedHosts."
        raise pictures.invalid(parameter, told) from None


def _known(text: str, parameter: str) -> pictures.Reference:
    """What a text refers to; the picture of a UUID must be there, and bytes must be a picture."""
    reference = pictures.refer(text, parameter)
    if reference.kind == "inline":
        pictures.read(reference.content, parameter)
    elif reference.kind == "uuid":
        _stored(reference.text, parameter)
    return reference


def _stored(name: str, parameter: str) -> StoredPicture:
    picture = home.store().picture(name)
    if picture is None or not home.store().path(picture).is_file():
        told = f"{parameter} is {name}, and there is no such picture, or none any more: upload it again."
        raise pictures.invalid(parameter, told)
    return picture


def _save(reference: pictures.Reference, parameter: str, kind: str, keep: bool) -> str:
    store = home.store()
    if reference.kind == "uuid":
        picture = _stored(reference.text, parameter)
        store.use(picture.uuid, None if keep else _expiry(picture.kind))
        return picture.uuid
    pictures.read(reference.content, parameter)
    name = str(uuid.uuid4() if kind == "upload" else _name_of(reference.content))
    earlier = store.picture(name)
    kept = keep or (earlier is not None and earlier.expires is None)
    picture = StoredPicture(name, f"{name}.{pictures.ending(reference.content)}", kind, None if kept else _expiry(kind))
    path = store.path(picture)
    if not path.exists():
        write(path, reference.content)
    store.add(picture)
    return name


def _name_of(content: bytes) -> uuid.UUID:
    return uuid.uuid5(_INPUTS, hashlib.sha256(content).hexdigest())


def _expiry(kind: str) -> float:
    return time.time() + (INPUTS_KEPT if kind == "input" else UPLOADS_KEPT)


def models_of(wire: Mapping[str, Any]) -> Iterator[tuple[str, Kind, Any]]:
    """The names of models in a request, each with its parameter."""
    yield "model", "model", wire.get("model")
    kinds: tuple[Kind, ...] = ("lora", "controlNet", "ipAdapters")
    for kind in kinds:
        for index, part in _parts(wire, kind):
            yield f"{kind}[{index}].model", kind, part.get("model")


def pictures_of(wire: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The texts of pictures in a request, each with its parameter."""
    if isinstance(given := wire.get("inputs"), Mapping):
        yield from ((f"inputs.{name}", given[name]) for name in ("seedImage", "maskImage") if name in given)
    for index, part in _parts(wire, "controlNet"):
        if "guideImage" in part:
            yield f"controlNet[{index}].guideImage", part["guideImage"]
    for index, part in _parts(wire, "ipAdapters"):
        texts = part.get("guideImages")
        for number, text in enumerate(texts if isinstance(texts, (list, tuple)) else ()):
            yield f"ipAdapters[{index}].guideImages[{number}]", text


def _parts(wire: Mapping[str, Any], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    parts = wire.get(name)
    for index, part in enumerate(parts if isinstance(parts, (list, tuple)) else ()):
        if isinstance(part, Mapping):
            yield index, part


def replaced(value: Any, by: Mapping[str, str], path: str = "") -> Any:
    """A request's values with others at some of its parameters."""
    if path in by:
        return by[path]
    if isinstance(value, Mapping):
        return {name: replaced(one, by, f"{path}.{name}" if path else name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(one, by, f"{path}[{index}]") for index, one in enumerate(value)]
    return value
