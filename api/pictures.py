"""Pictures as clients send them: what a text refers to, and bytes that become a picture or a clear refusal."""

from __future__ import annotations

import base64
import binascii
import io
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..pipelines.errors import RequestError, show
from ..pipelines.rules import code, field_of

if TYPE_CHECKING:
    from PIL import Image

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 64 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP")

Kind = Literal["uuid", "url", "inline"]

_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """What the text of an image parameter refers to: the UUID of a stored picture, a URL, or the picture's bytes."""

    kind: Kind
    text: str
    content: bytes = b""


def refer(text: str, parameter: str) -> Reference:
    """Reads the text of an image parameter. Raises RequestError where it is none of the forms that the API takes."""
    if re.match(r"https?://", text, re.IGNORECASE):
        return Reference("url", text)
    try:
        return Reference("uuid", str(uuid.UUID(text)))
    except ValueError:
        pass
    encoded = text
    if text[:5].lower() == "data:":
        head = _DATA_URI.match(text)
        if head is None:
            raise invalid(parameter, f"{parameter} is a data URI that is not in base64.")
        encoded = text[head.end() :]
    # Three bytes become four characters.
    if len(encoded) > 4 * (MOST_BYTES // 3 + 1):
        raise invalid(parameter, f"{parameter} has more than {MOST_BYTES // 2**20} MiB.", max=MOST_BYTES)
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        told = f"{parameter} is {show(text)}; it must be the UUID of a picture, a URL, a data URI or base64."
        raise invalid(parameter, told) from None
    return Reference("inline", text, content)


def read(content: bytes, parameter: str) -> Image.Image:
    """The picture in `content`, upright, in mode RGB or RGBA. What it is, its bytes say, not its name.

    Raises RequestError where it is no PNG, JPEG or WEBP, is cut off, or has more than MOST_PIXELS, which is known
    before any of them is unpacked.
    """
    from PIL import Image, ImageOps

    if len(content) > MOST_BYTES:
        raise invalid(parameter, f"{parameter} has more than {MOST_BYTES // 2**20} MiB.", max=MOST_BYTES)
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(parameter) from None
    except Exception:
        raise invalid(parameter, f"{parameter} is no picture in PNG, JPG or WEBP.") from None
    if picture.width * picture.height > MOST_PIXELS:
        raise _too_large(parameter)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except Exception:
        raise invalid(parameter, f"{parameter} is a {picture.format} file that is damaged or cut off.") from None
    return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


def ending(content: bytes) -> str:
    """The file name's ending for bytes that `read` takes."""
    if content.startswith(b"\x89PNG"):
        return "png"
    return "jpg" if content.startswith(b"\xff\xd8") else "webp"


def _too_large(parameter: str) -> RequestError:
    return invalid(parameter, f"{parameter} has more than {MOST_PIXELS // 2**20} million pixels.", max=MOST_PIXELS)


def invalid(parameter: str, message: str, **limits: object) -> RequestError:
    """The error of a parameter that holds no usable picture."""
    return RequestError(code("invalid", field_of(parameter)), message, parameter, **limits)
