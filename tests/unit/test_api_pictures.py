"""Texts that refer to pictures, and bytes that become pictures."""

from __future__ import annotations

import base64
import io
import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sd3_local.api import pictures
from sd3_local.api.pictures import read, refer
from sd3_local.pipelines.errors import RequestError


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 4), mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, "red").save(file, kind, **options)
    return file.getvalue()


def refusal(content: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        read(content, "inputs.seedImage")
    (fault,) = caught.value.faults
    assert (fault.code, fault.parameter) == ("invalidSeedImage", "inputs.seedImage")
    return fault.message


@pytest.mark.parametrize("text", ["https://example.com/a.png", "HTTP://example.com"])
def test_a_url(text: str) -> None:
    assert (refer(text, "image").kind, refer(text, "image").text) == ("url", text)


def test_a_uuid_in_any_spelling() -> None:
    name = uuid.uuid4()
    for text in (str(name), str(name).upper(), f"{{{name}}}", name.hex):
        assert refer(text, "image") == pictures.Reference("uuid", str(name))


@given(st.binary(min_size=1, max_size=400))
def test_bytes_in_a_data_uri_and_bare(content: bytes) -> None:
    encoded_text = base64.b64encode(content).decode()
    for text in (f"data:image/png;base64,{encoded_text}", f"data:;base64,{encoded_text}"):
        assert (refer(text, "image").kind, refer(text, "image").content) == ("inline", content)
    broken = "\n".join(encoded_text[at : at + 76] for at in range(0, len(encoded_text), 76))
    found = refer(broken, "image")
    # 32 hexadecimal digits are a UUID, whatever else they may be.
    assert found.kind == "uuid" or found.content == content


@pytest.mark.parametrize("text", ["data:image/png,abc", "no picture", "c:\\picture.png", "../../secret", "é", "AAA"])
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        refer(text, "controlNet[1].guideImage")
    (fault,) = caught.value.faults
    assert (fault.code, fault.parameter) == ("invalidGuideImage", "controlNet[1].guideImage")


def test_an_inline_picture_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 300)
    monkeypatch.setattr(pictures.base64, "b64decode", None)
    with pytest.raises(RequestError, match="has more than"):
        refer("A" * 500, "image")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_formats_of_the_api(kind: str) -> None:
    picture = read(encoded(kind), "image")
    assert (picture.size, picture.mode) == ((8, 4), "RGB")
    assert picture.getpixel((2, 2))[0] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "I;16"])
def test_every_mode_becomes_rgb_with_or_without_alpha(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (5, 5)).save(file, "PNG")
    assert read(file.getvalue(), "image").mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")


def test_a_photograph_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(encoded("JPEG", exif=exif), "image").size == (4, 8)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(kind: str) -> None:
    assert "no picture in PNG, JPG or WEBP" in refusal(encoded(kind))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg onload='x'/>", bytes(100)])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    refusal(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_off_is_refused_at_every_length(kind: str) -> None:
    import random

    noise = Image.frombytes("RGB", (32, 32), random.Random(1).randbytes(32 * 32 * 3))
    file = io.BytesIO()
    noise.save(file, kind)
    content = file.getvalue()
    for length in range(0, len(content) // 2, 37):
        refusal(content[:length])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """A file of a few kilobytes that says it has ten thousand million pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    for side in (100_000, 9_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999)))
        assert "million pixels" in refusal(content + chunk(b"IEND", b""))


def test_more_bytes_than_are_taken_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    assert "has more than" in refusal(encoded(size=(900, 900)) + bytes(200))
