"""What a picture's file tells of how it was made: the request, and the workflow and prompt that ComfyUI's editor opens.

PNG has them as text chunks "workflow", "prompt" and "request". JPG and WEBP have them as EXIF texts "name:JSON", in the
tags Make and Model, where ComfyUI's frontend looks for those two, and ImageDescription.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

TAGS = {"workflow": 0x010F, "prompt": 0x0110, "request": 0x010E}
"""The EXIF tag of each part."""

MOST_JPEG_BYTES = 65_000
"""Of EXIF in a JPG: a segment of the file has at most 65535 bytes."""

MOST_BYTES = 4 * 2**20
"""Of one part: a request may hold whole pictures."""

NOT_KEPT = ("taskUUID", "uploadEndpoint", "webhookURL", "numberResults")
"""Parts of a request that are no picture's business: a task's name is used once, and addresses may hold keys."""


def parts(request: Mapping[str, Any] | None, seed: int, graph: Mapping[str, Any]) -> dict[str, Any]:
    """What to write: the request of the one picture with `seed`, and of the graph's "workflow" and "prompt" what there
    is.
    """
    told = {name: graph[name] for name in ("workflow", "prompt") if graph.get(name)}
    if request is not None:
        kept = {name: value for name, value in request.items() if name not in NOT_KEPT}
        told["request"] = {**kept, "seed": seed}
    return told


def options(told: Mapping[str, Any], output_format: str) -> dict[str, Any]:
    """What Pillow's `save` needs to write `told` into a file of the API's `output_format`.

    A JPG has room for about 64 KiB: of what is more, the request is kept before the workflow, and that before the
    prompt.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if not told:
        return {}
    texts = {name: json.dumps(value) for name, value in told.items()}
    texts = {name: text for name, text in texts.items() if len(text) <= MOST_BYTES}
    if output_format == "PNG":
        chunks = PngInfo()
        for name, text in texts.items():
            chunks.add_text(name, text)
        return {"pnginfo": chunks}
    exif = Image.Exif()
    for name in ("request", "workflow", "prompt"):
        if name not in texts:
            continue
        exif[TAGS[name]] = f"{name}:{texts[name]}"
        if output_format == "JPG" and len(exif.tobytes()) > MOST_JPEG_BYTES:
            del exif[TAGS[name]]
    return {"exif": exif.tobytes()}


def read(picture: Image.Image) -> dict[str, Any]:
    """What an opened file tells, by name; nothing for a file that tells nothing, or no JSON."""
    texts = {name: text for name, text in picture.info.items() if name in TAGS and isinstance(text, str)}
    exif = picture.getexif()
    for name, tag in TAGS.items():
        text = exif.get(tag)
        if isinstance(text, str) and text.startswith(f"{name}:"):
            texts.setdefault(name, text[len(name) + 1 :])
    told = {}
    for name, text in texts.items():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            told[name] = value
    return told


def of_file(content: bytes) -> dict[str, Any]:
    """The same of a file's bytes. Raises OSError where they are no picture."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
        return read(picture)
