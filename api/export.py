"""A graph of the editor as a request for any server of the API: models by their names there, pictures as such."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..host import folders
from ..pipelines.parse import dump
from . import answers, home, pictures
from .graph import Node, to_request
from .intake import models_of, pictures_of, replaced

if TYPE_CHECKING:
    from PIL import Image


def exported(graph: Mapping[str, Any], sources: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The request that a graph in ComfyUI's API format stands for, as the API writes it. Raises RequestError where it
    is none, with everything that stands against it.

    `sources` tells, by the UUID of a stored picture, the URL that it came from, which the request then has.
    """
    wire = named(dump(to_request(graph, _picture)))
    wire = replaced(wire, {path: _portable(text, sources) for path, text in pictures_of(wire)})
    return {"taskType": wire.pop("taskType"), "taskUUID": wire.pop("taskUUID"), **wire}


def named(wire: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose models have the names that the API knows them by, where the user's table tells such."""
    names = {path: home.models().name_of(file, kind) for path, kind, file in models_of(wire) if isinstance(file, str)}
    return replaced(wire, names)


def _portable(text: str, sources: Mapping[str, Any]) -> str:
    """A picture of a request as it came: clients know the UUIDs of uploads and results, and no others."""
    if isinstance(source := sources.get(text), str):
        return source
    reference = pictures.refer(text, "picture")
    stored = home.store().picture(reference.text) if reference.kind == "uuid" else None
    if stored is None or stored.kind != "input":
        return text
    content = home.store().path(stored).read_bytes()
    return _uri(content, answers.MEDIA_TYPES[pictures.ending(content)])


def _picture(node: Node, output: int) -> str | None:
    """What the request says of a picture that ComfyUI loads by itself; None for other nodes."""
    name, kind = node["inputs"].get("image"), node.get("class_type")
    if kind not in ("LoadImage", "LoadImageMask") or not isinstance(name, str):
        return None
    path = folders.loadable_picture(name)
    if path is None:
        return None
    channel = "alpha" if kind == "LoadImage" else node["inputs"].get("channel")
    return _mask(path, str(channel)) if kind == "LoadImageMask" or output == 1 else _data_uri(path)


def _data_uri(path: Path) -> str:
    content = path.read_bytes()
    picture = pictures.read(content, "image")
    if picture.mode == "RGBA":
        # ComfyUI's nodes leave transparency out, where the API makes it white.
        return _encoded(picture.convert("RGB"))
    return _uri(content, answers.MEDIA_TYPES[pictures.ending(content)])


def _mask(path: Path, channel: str) -> str:
    """A mask as ComfyUI's nodes load it: the file's channel, of transparency the reverse. None of it is black."""
    from PIL import Image, ImageChops

    picture = pictures.read(path.read_bytes(), "image")
    letter = channel[:1].upper()
    if letter not in picture.getbands():
        return _encoded(Image.new("L", picture.size, 0))
    band = picture.getchannel(letter)
    return _encoded(ImageChops.invert(band) if letter == "A" else band)


def _encoded(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return _uri(out.getvalue(), "image/png")


def _uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
