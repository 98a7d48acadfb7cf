"""The end of a run: pictures become files that clients can have, and what is to be sent of them is put down."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..host import server
from ..pipelines.errors import RequestError
from ..pipelines.parse import dump, parse
from . import answers, home, metadata
from .export import exported, named
from .files import write
from .graph import before
from .store import Delivery, StoredPicture

if TYPE_CHECKING:
    from PIL import Image

    from ..pipelines.generate import Picture, Result
    from ..pipelines.request import ImageInference


def deliver(
    result: Result, options: Mapping[str, Any], prompt_id: str | None, graph: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Saves the pictures of a run, and gives what the API says of each.

    `options` are the request's fields about delivery that were set, by the API's names. A run that the endpoint queued
    as `prompt_id` ends the item of that name; any other run is told of under UUIDs of its own. Raises RequestError for
    options that do not go together, and OSError where a picture can't be written.

    `graph` is what ComfyUI knows of the run, as far as it tells: "prompt" and "workflow", and the "node" that delivers.
    The files carry it, with the request that each picture stands for.
    """
    request = parse({**dump(result.request), **options})
    seconds = sum(result.report.seconds.values()) / len(result.pictures)
    item = home.store().item(prompt_id) if prompt_id else None
    if item is not None and (task := home.store().task(item.task)) is not None:
        base, wire, graph = task.base, named(task.wire), {}
        home.store().note_pace(task.wire["model"], seconds, work(request))
    else:
        item, base, wire = None, home.settings().get().publicURL or server.own_url(), _request(graph)
    told = []
    for picture in result.pictures:
        # A run after a crash replaces the file of the run before, because its name is the item's.
        name = item.uuid if item is not None else str(uuid.uuid4())
        _, ending, _ = answers.FORMATS[request.output_format]
        stored = StoredPicture(
            name, f"{name}.{ending}", "result", None if request.ttl is None else time.time() + request.ttl
        )
        path = home.store().path(stored)
        about = metadata.parts(wire, picture.seed, graph) if server.keeps_metadata() else {}
        write(path, encode(image(picture), request.output_format, request.output_quality, about))
        answer: dict[str, Any] = {"imageUUID": name, "seed": picture.seed}
        if picture.nsfw is not None:
            answer["NSFWContent"] = picture.nsfw
        if request.include_cost:
            answer["cost"] = cost(seconds)
        said = answers.result(request.task_uuid, request.task_type, answer, base, path, request.output_type)
        sends = _deliveries(request, stored, said)
        if item is None:
            home.store().add(stored, sends)
        elif not home.store().end(item.uuid, "done", answer, sends, stored) and home.store().picture(name) is None:
            # Cancelled meanwhile: its client was told so.
            path.unlink(missing_ok=True)
        told.append(said)
    return told


def image(picture: Picture) -> Image.Image:
    import torch
    from PIL import Image

    return Image.fromarray((picture.pixels * 255).round().to(torch.uint8).numpy())


def encode(image: Image.Image, output_format: str, quality: int, about: Mapping[str, Any]) -> bytes:
    """A picture file, which tells `about` itself; `quality` is that of JPG and WEBP."""
    out = io.BytesIO()
    options = metadata.options(about, output_format) | ({} if output_format == "PNG" else {"quality": quality})
    image.save(out, answers.FORMATS[output_format][0], **options)
    return out.getvalue()


def _request(graph: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request of a run in the editor; None where its graph is more than a request can say."""
    try:
        return exported(before(graph.get("prompt") or {}, str(graph.get("node"))))
    except RequestError:
        return None


def webhook(url: str, told: Mapping[str, Any], failed: bool = False) -> Delivery:
    """What a webhook is to get: a result, or an error, in the form that the user's settings say."""
    try:
        wrapped = home.settings().get().webhookBody == "data"
    except RequestError:
        # A broken file of settings must not cost a client its news.
        wrapped = False
    return Delivery("webhook", url, json.dumps({"errors" if failed else "data": [told]} if wrapped else told))


def cost(seconds: float) -> float:
    """What so many seconds of the GPU cost, by the user's price of an hour."""
    return round(home.settings().get().pricePerGpuHour * seconds / 3600, 6)


def estimate(request: ImageInference) -> float:
    """What one result of a request would cost, going by how fast its model was last; 0 where it never ran."""
    return cost(work(request) * (home.store().pace(request.model) or 0.0))


def work(request: ImageInference) -> float:
    """How much there is to do for one result, in megapixels times steps."""
    return request.width * request.height * request.steps / 1e6


def _deliveries(request: ImageInference, picture: StoredPicture, told: Mapping[str, Any]) -> list[Delivery]:
    sends = []
    if request.upload_endpoint is not None:
        sends.append(Delivery("upload", request.upload_endpoint, picture.uuid))
    if request.webhook_url is not None:
        sends.append(webhook(request.webhook_url, told))
    return sends
