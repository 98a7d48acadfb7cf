"""300 bad requests, graphs and files through a real ComfyUI: one clear error each, and the next good run is right."""

from __future__ import annotations

import io
import math
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints import (
    CheckpointSpec,
    ClipSpec,
    TransformerSpec,
    VAESpec,
    state_dict,
    write_checkpoint,
    write_tensors,
)
from tests.comfy_host import ComfyHost, Run
from tests.graphs import Prompt, text_to_image

SPEC = CheckpointSpec(TransformerSpec(), VAESpec(), ClipSpec(64, 6), ClipSpec(64, 6, 64))
GOOD = "bad-requests/good.safetensors"
HUGE = "x" * 200_000
CASES = 300

INTEGERS = ["abc", "", {}, [], None, 10**30, -(10**30), math.nan, math.inf, "1e5"]
NUMBERS = ["abc", "", {}, [], None, 1e300, -1e300, math.nan, math.inf, -math.inf]
NAMES = [
    "no such name",
    "",
    "../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "good.safetensors\0",
    HUGE,
    7,
    {"a": 1},
]
TEXTS = ["x", "y" * 3001, HUGE, "\ud800 lone", "nul \0 inside"]

WRONG: dict[str, list[Any]] = {
    "width": [*INTEGERS, 0, -16, 63, 100, 1000, 16400, 2**40],
    "height": [*INTEGERS, 0, -16, 63, 100, 1000, 16400, 2**40],
    "seed": [*INTEGERS, -2, 2**63],
    "steps": [*INTEGERS, 0, -1, 10_001],
    "CFGScale": [*NUMBERS, 30.01, -0.5, -2, 31],
    "numberResults": [*INTEGERS, 0, 21, -1],
    "scheduler": [*NAMES, "euler", "DPMSolverMultistepInverse"],
    "positivePrompt": TEXTS,
    "negativePrompt": TEXTS,
    "clipSkip": [*INTEGERS, 5, -2, 99],
    "model": NAMES,
    "vae": NAMES,
    "textEncoder1": NAMES,
    "textEncoder2": NAMES,
    "textEncoder3": NAMES,
    "dtype": [*NAMES, "int8", "fp4"],
}


class Boom:
    """A pickle that would leave a file behind if anything in it ran."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def damage(folder: Path, good: Path) -> list[str]:
    """Writes model files that are none beside a good one, and tells their names."""
    whole = good.read_bytes()
    tensors = state_dict(SPEC, torch.float16)
    first = next(name for name in tensors if name.endswith("x_block.attn.qkv.weight"))
    for name, content in {
        "missing-key": {name: value for name, value in tensors.items() if name != first},
        "wrong-shape": {**tensors, first: torch.zeros(7, 7, dtype=torch.float16)},
        "nan": {name: torch.full_like(value, math.nan) for name, value in tensors.items()},
        "other-model": {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)},
        "nothing": {},
    }.items():
        write_tensors(folder / f"{name}.safetensors", content)
    written = {
        "empty.safetensors": b"",
        "text.safetensors": b"<!DOCTYPE html><html>Not Found</html>",
        "truncated.safetensors": whole[: len(whole) // 2],
        "header-only.safetensors": whole[: struct.unpack("<Q", whole[:8])[0] // 2],
        "huge-header.safetensors": struct.pack("<Q", 10**14) + b"{}",
        "not-json.safetensors": struct.pack("<Q", 8) + b"notjson!",
        "pickle.safetensors": pickle.dumps(Boom(folder / "it-ran")),
        "pickle.ckpt": pickle.dumps(Boom(folder / "it-ran")),
        "model.gguf.safetensors": b"GGUF" + bytes(64),
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    return sorted(path.name for path in folder.iterdir() if path != good)


def cases(names: list[str], count: int) -> list[tuple[str, Prompt, str | None]]:
    """`count` bad prompts, each with what it is and the parameter that its error must name (None: any)."""
    found: list[tuple[str, Prompt, str | None]] = []
    for field, values in WRONG.items():
        for value in values:
            found.append((f"{field}={str(value)[:30]!r}", text_to_image(**{"model": GOOD, field: value}), field))
    for name in names:
        for field in ("model", "vae", "textEncoder2"):
            if field != "model" and name in ("missing-key.safetensors", "wrong-shape.safetensors"):
                continue  # only the transformer in these is damaged
            graph = text_to_image(**{"model": GOOD, field: f"bad-requests/{name}"})
            found.append((f"{field}: {name}", graph, field))
    for key, node in text_to_image(model=GOOD).items():
        for field in node["inputs"]:
            if key in "123":
                graph = text_to_image(model=GOOD)
                del graph[key]["inputs"][field]
                found.append((f"without {field}", graph, field))
    for field in ("model", "prompt", "width"):
        for link in (["1", 0], ["2", 0], ["3", 1], ["4", 0], ["1", 9], ["99", 0]):
            graph = text_to_image(model=GOOD)
            if graph["3"]["inputs"][field] != link:
                graph["3"]["inputs"][field] = link
                found.append((f"{field} <- {link}", graph, None))
    for name in ("SD3LocalNothing", "", "../SD3LocalModel"):
        graph = text_to_image(model=GOOD)
        graph["3"]["class_type"] = name
        found.append((f"node {name!r}", graph, None))
    picker = random.Random(20)
    picker.shuffle(found)
    while len(found) < count:  # several faults at once make up the rest
        chosen = picker.sample(list(WRONG), 3)
        wrong = {field: picker.choice(WRONG[field]) for field in chosen}
        found.append((f"several: {chosen}", text_to_image(**{"model": GOOD, **wrong}), None))
    return found


@pytest.fixture(scope="module")
def files(host: ComfyHost) -> list[str]:
    names: list[str] = []
    for place in ("checkpoints", "vae", "text_encoders"):
        folder = host.models / place / "bad-requests"
        folder.mkdir(parents=True, exist_ok=True)
        good = write_checkpoint(folder / "good.safetensors", SPEC, torch.float16)
        names = damage(folder, good)
    return names


def picture(host: ComfyHost, run: Run) -> np.ndarray:
    assert run.status == "success", run.error
    image = next(image for image in run.images if image["filename"].endswith("png"))
    return np.asarray(Image.open(io.BytesIO(host.view(image))))


@pytest.mark.timeout(1500)
def test_bad_requests_have_one_clear_error_each_and_leave_nothing_behind(host: ComfyHost, files: list[str]) -> None:
    def good(prefix: str) -> np.ndarray:
        graph = text_to_image(model=GOOD, seed=11, steps=2)
        graph["4"]["inputs"]["filename_prefix"] = prefix
        return picture(host, host.run(graph))

    expected = good("expected")
    bad = cases(files, CASES)
    assert len(bad) >= CASES
    complaints: list[str] = []
    for index, (what, graph, parameter) in enumerate(bad):
        run = host.run(graph)
        told = run.error or ""
        if run.status not in ("refused", "error"):
            complaints.append(f"{what}: {run.status}")
        elif not told or "Traceback" in told or len(told) > 4000:
            complaints.append(f"{what}: no clear error: {told[:200]!r}")
        elif parameter is not None and parameter not in told:
            complaints.append(f"{what}: does not name {parameter}: {told[:200]!r}")
        if index % 60 == 59 and not np.array_equal(good(f"after-{index}"), expected):
            complaints.append(f"{what}: the next good run was another picture")
    assert not complaints, "\n".join(complaints)
    assert np.array_equal(good("at-the-end"), expected)
    for place in ("checkpoints", "vae", "text_encoders"):
        assert not (host.models / place / "bad-requests" / "it-ran").exists()


def test_every_fault_of_a_request_is_told_at_once(host: ComfyHost, files: list[str]) -> None:
    run = host.run(
        text_to_image(
            model=GOOD, width=1000, height=72, positivePrompt="x", negativePrompt="y" * 3001, CFGScale=math.nan
        )
    )
    assert run.status == "error"
    for parameter in ("width", "height", "positivePrompt", "negativePrompt", "CFGScale"):
        assert parameter in run.error
    lines = run.error.splitlines()
    assert len(lines) == 5, run.error


def test_every_file_that_is_not_there_is_told_at_once(host: ComfyHost) -> None:
    run = host.run(text_to_image(model="a", vae="b", textEncoder1="c", textEncoder3="d"))
    assert run.status == "error"
    assert [line.count("has no") for line in run.error.splitlines()] == [1, 1, 1, 1]
