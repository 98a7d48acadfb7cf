"""SD3LocalPicture: a picture as the hosted API's requests name one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..pipelines.errors import RequestError, show
from . import sockets
from .schema import Schema

if TYPE_CHECKING:
    import torch

MOST_SIDE = 1024
"""The longest side, in pixels, to which pictures of different sizes are brought: more than any image encoder sees."""


class SD3LocalPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return Schema(
            node_id="SD3LocalPicture",
            display_name="SD3 Picture",
            category=sockets.CATEGORY,
            description="A picture as the hosted API's requests name one: by the UUID of an upload or of an earlier "
            "result, or by its own bytes. Where such a request becomes a graph, its pictures are these nodes.",
            search_aliases=["load image", "image from base64", "data URI", "UUID"],
            inputs=[
                io.String.Input(
                    "picture",
                    display_name="picture",
                    default="",
                    tooltip="The UUID of a picture that the endpoint has, or a PNG, JPG or WEBP file as data URI or "
                    "base64, of at most 32 MiB and 64 million pixels. No URL: nodes use no network.",
                ),
                io.Image.Input(
                    "pictures",
                    display_name="pictures",
                    tooltip="Earlier pictures, from another SD3 Picture: the output is the batch of all of them, this "
                    f"one last. Where sizes differ, all are stretched to their largest width and height, at most "
                    f"{MOST_SIDE} pixels. To SD3 IP-Adapter that is all the same: it makes a square of each.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, or the batch of all of them."),
                io.Mask.Output(
                    display_name="mask", tooltip="Its brightness, from black, 0, to white, 1: for SD3 Inputs."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, picture=None, **_values):
        """Changes when a stored picture does: above all when its time is over."""
        path = _stored(picture) if isinstance(picture, str) else None
        return path is not None and path.is_file()

    @classmethod
    def execute(cls, picture: str, pictures: torch.Tensor | None = None) -> io.NodeOutput:
        from ..pipelines.inputs import brightness

        opened = _opened(picture)
        images = opened if pictures is None else _joined(pictures, opened)
        return io.NodeOutput(images, brightness(images))


def _stored(picture: str) -> Path | None:
    """The file of a stored picture; None where `picture` is no UUID, or that of none."""
    from ..api import home
    from ..api.pictures import refer

    try:
        reference = refer(picture, "picture")
    except RequestError:
        return None
    return home.store().picture_path(reference.text) if reference.kind == "uuid" else None


def _opened(picture: str) -> torch.Tensor:
    """The picture [1, H, W, 3], from 0 to 1; its transparency is white."""
    import numpy as np
    import torch
    from PIL import Image

    from ..api.pictures import read

    opened = read(_content(picture), "picture")
    if opened.mode == "RGBA":
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened).convert("RGB")
    return torch.from_numpy(np.asarray(opened, np.float32) / 255)[None]


def _content(picture: str) -> bytes:
    from ..api import home
    from ..api.pictures import refer

    if not picture.strip():
        told = "picture is empty; give the UUID of a stored picture, a data URI or base64."
        raise RequestError("missingPicture", told, "picture")
    reference = refer(picture, "picture")
    if reference.kind == "inline":
        return reference.content
    if reference.kind == "url":
        told = (
            f"picture is the address {show(picture)}, and nodes use no network. Give the picture's UUID, data URI or "
            "base64; the endpoint fetches what a request names by address before its graph is run."
        )
        raise RequestError("unsupportedPicture", told, "picture")
    path = home.store().picture_path(reference.text)
    try:
        if path is not None:
            return path.read_bytes()
    except FileNotFoundError:
        pass
    told = f"picture is {reference.text}, and no stored picture has this UUID, or its time is over: upload it again."
    raise RequestError("invalidPicture", told, "picture")


def _joined(earlier: torch.Tensor, latest: torch.Tensor) -> torch.Tensor:
    """One batch [B, H, W, 3] of pictures that may have different sizes."""
    import torch

    from ..pipelines.canvas import resized
    from ..pipelines.inputs import opaque

    earlier = opaque(earlier)
    if earlier.shape[1:3] == latest.shape[1:3]:
        return torch.cat([earlier, latest])
    height, width = (min(MOST_SIDE, max(earlier.shape[axis], latest.shape[axis])) for axis in (1, 2))
    return torch.stack([resized(picture, width, height) for picture in (*earlier, *latest)])
