"""What clients are told: a result, or what is wrong, as the API writes it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..pipelines.errors import SHOWN, Fault, RequestError

FORMATS = {
    "JPG": ("JPEG", "jpg", "image/jpeg"),
    "PNG": ("PNG", "png", "image/png"),
    "WEBP": ("WEBP", "webp", "image/webp"),
}
"""The API's name of a file format -> Pillow's, the file's ending, and the media type."""

MEDIA_TYPES = {ending: media for _, ending, media in FORMATS.values()}

MOST_ERRORS = 100
"""Of one task."""

IMAGES = "/sd3local/images/"
"""The path under which pictures are served."""


def result(
    task: str, kind: str, answer: Mapping[str, Any], base: str, path: Path | None, output_type: str
) -> dict[str, Any]:
    """One result. `answer` has its imageUUID and what else is told of it; `path` is the picture's file, None when there
    is none any more.

    The URL is told whatever was asked for: the published Python client takes a polled result for unfinished without
    one.
    """
    told = {"taskType": kind, "taskUUID": task, "imageUUID": answer["imageUUID"]}
    if path is not None:
        told["imageURL"] = f"{base}{IMAGES}{path.name}"
        if output_type != "URL":
            encoded = base64.b64encode(path.read_bytes()).decode()
            if output_type == "base64Data":
                told["imageBase64Data"] = encoded
            else:
                told["imageDataURI"] = f"data:{MEDIA_TYPES[path.suffix[1:]]};base64,{encoded}"
    return told | {name: value for name, value in answer.items() if name != "imageUUID"}


def errors(faults: Iterable[Fault], task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Error objects for what is wrong with a task; they carry its taskType and taskUUID where it has such."""
    # An answer must not be much longer than what it answers: a name that long is none, and a hundred errors will do.
    names = {name: task[name] for name in ("taskType", "taskUUID") if isinstance(task.get(name), str)}
    names = {name: value for name, value in names.items() if len(value) <= SHOWN}
    return [
        {"code": fault.code, "message": str(fault), "parameter": fault.parameter or "taskType", **names, **fault.limits}
        for fault in islice(faults, MOST_ERRORS)
    ]


def faults_of(error: Exception) -> tuple[Fault, ...]:
    """What an exception tells a client: a request's faults, or that something went wrong in here."""
    if isinstance(error, RequestError):
        return error.faults
    told = f"The server failed ({type(error).__name__}); its log says more. Nothing was lost: ask for it again."
    return (Fault("internalServerError", told, "taskType"),)
