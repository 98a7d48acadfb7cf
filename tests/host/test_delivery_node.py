"""Pictures that come in and go out as the hosted API's do, in graphs of a real ComfyUI."""

from __future__ import annotations

import base64
import io
import json
import struct
import uuid
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from sd3_local.api.graph import OWN_FIELDS, to_graph
from sd3_local.pipelines.fields import MAX_INTEGER, spec, specs
from sd3_local.pipelines.parse import parse
from sd3_local.pipelines.request import ImageInference, Outpaint

from tests.comfy_host import ComfyHost, Listener, Run
from tests.graphs import Prompt, text_to_image
from tests.strategies import BASE, FIELDS, requests

OPTIONS = {name: spec(ImageInference, name).unset for name in OWN_FIELDS["SD3LocalDelivery"]}
# Sides and steps have no end in the API; in a widget they have one, beyond that of every model.
ENDLESS = {path.rpartition(".")[2] for path, field in FIELDS.items() if field.max == MAX_INTEGER}
SIDE = 64
FORMATS = {"JPG": "JPEG", "PNG": "PNG", "WEBP": "WEBP"}


def delivered(**options: Any) -> Prompt:
    """A small picture, delivered by node 7, whose response node 8 shows."""
    run = {name: options.pop(name) for name in ("seed", "numberResults") if name in options}
    graph = text_to_image(width=SIDE, height=SIDE, steps=2, **run)
    for shows in ("4", "5", "6"):
        del graph[shows]
    graph["7"] = {"class_type": "SD3LocalDelivery", "inputs": {"result": ["3", 2], **OPTIONS, **options}}
    graph["8"] = {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}}
    return graph


def results(run: Run) -> list[dict[str, Any]]:
    assert run.status == "success", run.error
    response = json.loads(run.outputs["8"]["text"][0])
    assert list(response) == ["data"]
    return response["data"]


def served(host: ComfyHost, item: dict[str, Any]) -> bytes:
    assert item["imageURL"].startswith(f"{host.url}/sd3local/images/{item['imageUUID']}.")
    return host.read(item["imageURL"].removeprefix(host.url))


@pytest.mark.parametrize(
    ("output_format", "output_type", "extra"),
    [("JPG", "URL", None), ("PNG", "base64Data", "imageBase64Data"), ("WEBP", "dataURI", "imageDataURI")],
)
def test_a_result_is_told_of_as_the_api_does_and_its_url_is_the_file(
    host: ComfyHost, output_format: str, output_type: str, extra: str | None
) -> None:
    task = str(uuid.uuid4())
    run = host.run(delivered(taskUUID=task, outputFormat=output_format, outputType=output_type))
    (item,) = results(run)
    assert set(item) == {"taskType", "taskUUID", "imageUUID", "imageURL", "seed"} | ({extra} if extra else set())
    assert (item["taskType"], item["taskUUID"], item["seed"]) == ("imageInference", task, 7)
    (image,) = run.outputs["7"]["images"]
    content = host.view(image)
    assert image["filename"].rpartition(".")[2] == output_format.lower()
    opened = Image.open(io.BytesIO(content))
    assert (opened.format, opened.size) == (FORMATS[output_format], (SIDE, SIDE))
    assert served(host, item) == content
    if extra == "imageBase64Data":
        assert base64.b64decode(item[extra], validate=True) == content
    elif extra is not None:
        head, _, encoded = item[extra].partition(",")
        assert (head, base64.b64decode(encoded, validate=True)) == ("data:image/webp;base64", content)


def test_quality_and_cost_and_seeds(host: ComfyHost) -> None:
    sizes = {}
    for output_format in FORMATS:
        for quality in (20, 99):
            graph = delivered(outputFormat=output_format, outputQuality=quality, numberResults=2, includeCost=True)
            run = host.run(graph)
            first, second = results(run)
            assert (first["seed"], second["seed"], first["cost"]) == (7, 8, 0)
            assert first["imageUUID"] != second["imageUUID"]
            sizes[output_format, quality] = len(host.view(run.outputs["7"]["images"][0]))
    assert sizes["JPG", 20] < sizes["JPG", 99] and sizes["WEBP", 20] < sizes["WEBP", 99]
    assert sizes["PNG", 20] == sizes["PNG", 99]


def test_every_run_is_delivered_under_new_names(host: ComfyHost) -> None:
    first, again = host.run(delivered()), host.run(delivered())
    assert "3" in again.cached and "7" not in again.cached
    (one,), (other,) = results(first), results(again)
    assert one["imageUUID"] != other["imageUUID"] and one["taskUUID"] != other["taskUUID"]
    assert uuid.UUID(one["taskUUID"]).version == 4
    assert served(host, one) == served(host, other)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ttl": 5}, ("ttl is 5", "at least 60")),
        ({"ttl": 60, "outputType": "base64Data"}, ("ttl is 60", "only a URL expires")),
        ({"taskUUID": "mine"}, ("taskUUID is 'mine'", "UUID v4")),
        ({"uploadEndpoint": "ftp://a.example/x"}, ("uploadEndpoint is 'ftp://a.example/x'", "http or https URL")),
        ({"webhookURL": "not an address"}, ("webhookURL is 'not an address'", "http or https URL")),
        ({"outputFormat": "GIF"}, ("outputFormat", "GIF", "WEBP")),
        ({"outputType": "file"}, ("outputType", "file", "dataURI")),
        ({"outputQuality": 10}, ("outputQuality", "10", "20")),
        ({"outputQuality": 100}, ("outputQuality", "100", "99")),
        ({"deliveryMethod": "later"}, ("deliveryMethod", "later", "async")),
    ],
)
def test_a_bad_option_is_one_clear_error_before_anything_is_sampled(
    host: ComfyHost, options: dict[str, Any], told: tuple[str, ...]
) -> None:
    with Listener(host) as listener:
        run = host.run(delivered(seed=uuid.uuid4().int % 2**32, **options), client_id=listener.client_id)
    assert run.status in ("error", "refused")
    assert all(words in run.error for words in told), run.error
    assert len(run.error.splitlines()) == 1, run.error
    assert listener.of("progress") == []


def test_all_bad_options_are_told_at_once(host: ComfyHost) -> None:
    run = host.run(delivered(ttl=5, taskUUID="mine", webhookURL="x"))
    assert [line.partition(" is ")[0].rpartition(" ")[2] for line in run.error.splitlines()] == [
        *("taskUUID", "webhookURL", "ttl")
    ]


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def noise(width: int = SIDE, height: int = SIDE, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def shown(*pictures: str) -> Prompt:
    """Pictures in a chain; nodes 90 and 91 save them, and how bright they are."""
    graph: Prompt = {}
    for number, picture in enumerate(pictures):
        earlier = {"pictures": [str(number - 1), 0]} if number else {}
        graph[str(number)] = {"class_type": "SD3LocalPicture", "inputs": {"picture": picture, **earlier}}
    last = str(len(pictures) - 1)
    graph["90"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "picture"}}
    graph["91"] = {"class_type": "MaskToImage", "inputs": {"mask": [last, 1]}}
    graph["92"] = {"class_type": "SaveImage", "inputs": {"images": ["91", 0], "filename_prefix": "mask"}}
    return graph


def saved(host: ComfyHost, run: Run, node: str = "90") -> list[np.ndarray]:
    assert run.status == "success", run.error
    return [np.asarray(Image.open(io.BytesIO(host.view(image)))) for image in run.outputs[node]["images"]]


def test_a_result_comes_back_by_its_uuid(host: ComfyHost) -> None:
    run = host.run(delivered(outputFormat="PNG"))
    (item,) = results(run)
    (picture,) = saved(host, host.run(shown(item["imageUUID"].upper())))
    assert np.array_equal(picture, np.asarray(Image.open(io.BytesIO(served(host, item)))))


def test_a_picture_s_bytes_and_its_brightness(host: ComfyHost) -> None:
    drawn = noise()
    drawn.paste("white", (0, 0, 8, 8))
    for text in (in_base64(encoded(drawn)), f"data:image/png;base64,{in_base64(encoded(drawn))}"):
        run = host.run(shown(text))
        assert np.array_equal(saved(host, run)[0], np.asarray(drawn))
        # Pillow rounds where SaveImage cuts off.
        bright = saved(host, run, "92")[0][..., 0].astype(int)
        assert np.abs(bright - np.asarray(drawn.convert("L"), int)).max() <= 1
        assert (bright[:8, :8] == 255).all()


def test_transparency_is_white(host: ComfyHost) -> None:
    drawn = noise()
    drawn.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), SIDE // 2, 1).repeat(SIDE, 0)))
    run = host.run(shown(in_base64(encoded(drawn, "WEBP"))))
    (picture,) = saved(host, run)
    assert (picture[:, : SIDE // 2] == 255).all()
    kept = np.asarray(Image.open(io.BytesIO(encoded(drawn, "WEBP"))).convert("RGB"))[:, SIDE // 2 :]
    assert np.array_equal(picture[:, SIDE // 2 :], kept)


def test_earlier_pictures_are_a_batch_of_one_size(host: ComfyHost) -> None:
    one, other = noise(seed=1), noise(seed=2)
    alike = saved(host, host.run(shown(in_base64(encoded(one)), in_base64(encoded(other)))))
    assert [np.array_equal(*pair) for pair in zip(alike, (one, other), strict=True)] == [True, True]
    texts = [in_base64(encoded(noise(*size))) for size in ((64, 32), (32, 48), (1200, 16))]
    assert [picture.shape for picture in saved(host, host.run(shown(*texts[:2])))] == [(48, 64, 3)] * 2
    assert [picture.shape for picture in saved(host, host.run(shown(*texts)))] == [(48, 1024, 3)] * 3


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
BAD_PICTURES = {
    "nothing": ("", ("picture is empty",)),
    "an unknown UUID": ("7bd2f8a5-6f0e-4d0e-9d65-0123456789ab", ("7bd2f8a5", "no stored picture")),
    "an address": ("https://a.example/a.png", ("https://a.example/a.png", "nodes use no network")),
    "a path": ("../../input/x.png", ("'../../input/x.png'", "UUID")),
    "base64 with a hole": ("iVBORw0KGgo*", ("picture is 'iVBORw0KGgo*'", "base64")),
    "a text": (in_base64(b"I am no picture."), ("no picture in PNG, JPG or WEBP",)),
    "a GIF": (in_base64(encoded(noise(), "GIF")), ("no picture in PNG, JPG or WEBP",)),
    "half a file": (in_base64(encoded(noise())[:3000]), ("damaged or cut off",)),
    "a bomb": (in_base64(BOMB), ("more than 64 million pixels",)),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_is_one_clear_error(host: ComfyHost, case: str) -> None:
    text, told = BAD_PICTURES[case]
    run = host.run(shown(text))
    assert run.status == "error"
    assert all(words in run.error for words in told), run.error
    assert run.error.startswith("SD3LocalPicture: ") and len(run.error.splitlines()) == 1


def wire(**fields: Any) -> dict[str, Any]:
    asked = {"model": "sd3-nano", "width": SIDE, "height": SIDE, "steps": 2, "outputFormat": "PNG", "seed": 3}
    return {**BASE, **asked, **fields}


def end(host: ComfyHost, **fields: Any) -> Run:
    """The run of a request's graph."""
    return host.run(to_graph(parse(wire(**fields))))


def test_the_graph_of_a_request_masks_by_a_picture_s_brightness(host: ComfyHost) -> None:
    seed, mask = noise(), Image.new("RGB", (SIDE, SIDE))
    mask.paste("white", (0, 0, SIDE // 2, SIDE))
    inputs = {"seedImage": in_base64(encoded(seed)), "maskImage": in_base64(encoded(mask, "WEBP"))}
    run = end(host, inputs=inputs, strength=1)
    assert run.status == "success", run.error
    painted = np.asarray(Image.open(io.BytesIO(host.view(run.images[0]))))
    before = np.asarray(seed)
    assert np.array_equal(painted[:, SIDE // 2 :], before[:, SIDE // 2 :])
    assert not np.array_equal(painted[:, : SIDE // 2], before[:, : SIDE // 2])


def test_the_graph_of_a_request_outpaints_one_side_alone(host: ComfyHost) -> None:
    seed = noise(SIDE - 16, SIDE)
    run = end(host, inputs={"seedImage": in_base64(encoded(seed))}, outpaint={"left": 16}, strength=1)
    assert run.status == "success", run.error
    painted = np.asarray(Image.open(io.BytesIO(host.view(run.images[0]))))
    assert np.array_equal(painted[:, 16:], np.asarray(seed))


def test_strength_needs_no_seed_image_and_a_mask_and_outpaint_do(host: ComfyHost) -> None:
    assert end(host, strength=0.5, maskMargin=32).status == "success"
    graph = to_graph(parse(wire(inputs={"seedImage": "s", "maskImage": in_base64(encoded(noise()))})))
    start = next(node["inputs"] for node in graph.values() if node["class_type"] == "SD3LocalInputs")
    del start["seedImage"]
    told = host.run(graph).error
    assert "inputs.seedImage is missing, but maskImage needs it" in told and len(told.splitlines()) == 1
    graph = to_graph(parse(wire(strength=0.5)))
    graph["90"] = {"class_type": "SD3LocalOutpaint", "inputs": {name: 16 for name in specs(Outpaint)}}
    sampler = next(node["inputs"] for node in graph.values() if node["class_type"] == "SD3LocalSampler")
    sampler["outpaint"] = ["90", 0]
    told = host.run(graph).error
    assert "inputs.seedImage is missing, but outpaint needs it" in told and len(told.splitlines()) == 1


def test_a_request_names_neither_detector_nor_classifier(host: ComfyHost) -> None:
    run = end(host, ultralytics={"confidence": 1, "strength": 0}, safety={"mode": "fast"})
    assert run.status == "success", run.error


@pytest.fixture(scope="module")
def declared(host: ComfyHost) -> dict[str, Any]:
    return host.object_info()


@settings(max_examples=150)
@given(requests())
def test_comfyui_takes_the_graph_of_any_request(declared: dict[str, Any], asked: dict[str, Any]) -> None:
    for node in to_graph(parse(asked)).values():
        inputs = declared[node["class_type"]]["input"]
        required = inputs.get("required", {})
        known = {**required, **inputs.get("optional", {})}
        assert required.keys() <= node["inputs"].keys() <= known.keys()
        for name, value in node["inputs"].items():
            kind, options = known[name]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert kind in ("INT", "FLOAT")
                assert options["min"] <= value, (name, value)
                assert value <= options["max"] or name in ENDLESS, (name, value)
            elif kind == "COMBO" and name != "model":
                assert value in options["options"], (name, value)
