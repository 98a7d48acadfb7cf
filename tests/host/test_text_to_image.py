"""Text to image through a real ComfyUI, as a browser drives it."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ComfyHost, Listener, Run
from tests.graphs import Prompt, text_to_image

ENCODERS = {"clip_l": ClipSpec(64, 6), "clip_g": ClipSpec(64, 6, 64)}


@pytest.fixture(scope="module")
def model(host: ComfyHost) -> str:
    """A tiny model in ComfyUI's folder checkpoints."""
    name = "tiny/sd3.safetensors"
    path = host.models / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, CheckpointSpec(TransformerSpec(), VAESpec(), **ENCODERS), torch.float16)
    return name


def pixels(host: ComfyHost, run: Run) -> list[np.ndarray]:
    assert run.status == "success", run.error
    return [np.asarray(Image.open(io.BytesIO(host.view(image)))) for image in run.images if "png" in image["filename"]]


def report(run: Run) -> str:
    return run.outputs["6"]["text"][0]


def latent(host: ComfyHost, run: Run) -> torch.Tensor:
    return load(host.view(run.outputs["5"]["latents"][0]))["latent_tensor"]


def cancelled(host: ComfyHost, graph: Prompt) -> int:
    """Cancels the run of `graph` after its third step; how many steps were heard of after the cancelling.

    Its steps must be slow enough that what is heard keeps up with them.
    """
    with Listener(host) as heard:
        started = host.queue(graph, heard.client_id)
        heard.wait_for(lambda: len(heard.of("progress")) >= 3)
        host.interrupt()
        steps = len(heard.of("progress"))
        assert host.wait(started).status == "interrupted"
        time.sleep(0.2)
        return len(heard.of("progress")) - steps


def test_pictures_latents_and_report_go_into_comfyui_s_own_nodes(host: ComfyHost, model: str) -> None:
    run = host.run(text_to_image(model=model, width=160, height=96, numberResults=2, seed=41))
    pictures = pixels(host, run)
    assert [picture.shape for picture in pictures] == [(96, 160, 3)] * 2
    assert not np.array_equal(*pictures)
    assert latent(host, run).shape == (2, 16, 12, 20)
    for told in ("SD3 (2 blocks, width 128)", "160 x 96", "4 steps", "Default", "seeds 41, 42", "denoise", "decode"):
        assert told in report(run)


def test_a_result_is_the_same_picture_alone(host: ComfyHost, model: str) -> None:
    together = pixels(host, host.run(text_to_image(model=model, numberResults=3, seed=60)))
    alone = pixels(host, host.run(text_to_image(model=model, seed=62)))
    assert np.array_equal(together[2], alone[0])


def test_an_unchanged_graph_is_not_run_again_and_an_unset_seed_always_is(host: ComfyHost, model: str) -> None:
    fixed, free = text_to_image(model=model, seed=70), text_to_image(model=model, seed=-1)
    assert "3" not in host.run(fixed).cached
    assert "3" in host.run(fixed).cached
    one, other = host.run(free), host.run(free)
    assert report(one) != report(other)


def test_a_replaced_file_is_read_anew(host: ComfyHost, model: str) -> None:
    path = host.models / "checkpoints" / "replaced.safetensors"
    spec = CheckpointSpec(TransformerSpec(), VAESpec(), **ENCODERS)
    graph = text_to_image(model=path.name)
    write_checkpoint(path, spec, torch.float16, seed=1)
    first = pixels(host, host.run(graph))[0]
    new = write_checkpoint(path.with_suffix(".new"), spec, torch.float16, seed=2)
    new.replace(path)
    assert not np.array_equal(pixels(host, host.run(graph))[0], first)


def test_separate_files_are_the_all_in_one_file(host: ComfyHost, model: str) -> None:
    folders = {"diffusion_models": TransformerSpec(), "vae": VAESpec()}
    files = {**folders, "text_encoders/l": ENCODERS["clip_l"], "text_encoders/g": ENCODERS["clip_g"]}
    for place, spec in files.items():
        path = host.models / place / "part.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path, spec, torch.float16, seed=3)
    apart = host.run(
        text_to_image(
            model="part.safetensors",
            vae="part.safetensors",
            textEncoder1="g/part.safetensors",
            textEncoder3="l/part.safetensors",
        )
    )
    assert apart.status == "success", apart.error


def test_progress_and_previews_move_with_the_steps(host: ComfyHost, model: str) -> None:
    graph = text_to_image(model=model, seed=80, steps=5, numberResults=2)
    widgets = host.object_info()["SD3LocalAccelerator"]["input"]["required"]
    values = {name: options["default"] for name, (_, options) in widgets.items()}
    eager = {"teaCache": True, "teaCacheDistance": 1.0}
    graph["7"] = {"class_type": "SD3LocalAccelerator", "inputs": {**values, **eager}}
    graph["3"]["inputs"]["acceleratorOptions"] = ["7", 0]
    with Listener(host) as heard:
        run = host.run(graph, client_id=heard.client_id)
        assert run.status == "success", run.error
        heard.wait_for(lambda: bool(heard.of("execution_success")))
    steps = [(each["value"], each["max"]) for each in heard.of("progress") if each["node"] == "3"]
    assert steps == [(value, 10) for value in range(1, 11)]
    told = heard.of("sd3local.progress")
    assert {(each["node"], each["total"], each["aside"], each["prompt_id"]) for each in told} == {
        ("3", 10, False, run.prompt_id)
    }
    assert [told[index]["done"] for index in (0, -1)] == [1, 10]
    assert told[0]["left"] is None and told[-1]["left"] >= 0
    (summary,) = run.outputs["3"]["sd3local_summary"]
    assert (summary["steps"], summary["seeds"], summary["accelerator"]) == (10, ["80", "81"], "TeaCache")
    assert summary["reused"] == told[-1]["reused"] > 0
    assert summary["speedup"] == 10 / (10 - summary["reused"])
    (decisions,) = summary["drawings"]
    drawn = Image.open(io.BytesIO(host.view(decisions)))
    assert drawn.size == (decisions["width"], decisions["height"])


def test_a_run_is_compared_with_itself_and_with_another(host: ComfyHost, model: str) -> None:
    graph = text_to_image(model=model, seed=82, numberResults=2)
    graph["7"] = {"class_type": "SD3LocalSampler", "inputs": {**graph["3"]["inputs"], "steps": 2, "numberResults": 1}}
    linked = {"imagesA": ["3", 0], "labelA": "", "labelB": ""}
    graph["8"] = {
        "class_type": "SD3LocalCompare",
        "inputs": {**linked, "imagesB": ["7", 0], "resultA": ["3", 2], "resultB": ["7", 2], "labelB": "two steps"},
    }
    graph["9"] = {"class_type": "SD3LocalCompare", "inputs": {**linked, "imagesB": ["3", 0]}}
    graph["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}}
    run = host.run(graph)
    assert run.status == "success", run.error
    (told,) = run.outputs["8"]["sd3local_compare"]
    assert [told[side]["label"] for side in "ab"] == ["without accelerator", "two steps"]
    assert [(told[side]["count"], told[side]["steps"], told[side]["reused"]) for side in "ab"] == [(2, 8, 0), (1, 2, 0)]
    (pair,) = told["pairs"]
    a, b = (np.asarray(Image.open(io.BytesIO(host.view(pair[side]))), dtype=float) / 255 for side in "ab")
    assert np.abs(a - b).mean() == pytest.approx(pair["mean"], abs=1 / 255)
    assert 10 * np.log10(1 / ((a - b) ** 2).mean()) == pytest.approx(pair["psnr"], abs=0.1)
    report = run.outputs["10"]["text"][0]
    assert "2 and 1 pictures, so the first 1 are compared" in report and "two steps is" in report
    (itself,) = run.outputs["9"]["sd3local_compare"]
    assert [(pair["psnr"], pair["mean"], pair["largest"]) for pair in itself["pairs"]] == [(None, 0, 0)] * 2
    assert [itself[side] for side in "ab"] == [{"label": "A", "count": 2}, {"label": "B", "count": 2}]


def test_pictures_of_different_size_are_not_compared(host: ComfyHost) -> None:
    graph = {
        str(side): {"class_type": "EmptyImage", "inputs": {"width": side, "height": 16, "batch_size": 1, "color": 255}}
        for side in (16, 32)
    }
    inputs = {"imagesA": ["16", 0], "imagesB": ["32", 0], "labelA": "", "labelB": ""}
    run = host.run({**graph, "1": {"class_type": "SD3LocalCompare", "inputs": inputs}})
    assert "imagesB are 32 x 16 pixels and imagesA are 16 x 16" in run.error


def test_a_cancelled_run_stops_within_one_step_and_spoils_nothing(host: ComfyHost, model: str) -> None:
    expected = pixels(host, host.run(text_to_image(model=model, seed=90)))[0]
    # The step under way may still end, and the news of the one before it may still be on its way.
    assert cancelled(host, text_to_image(model=model, seed=91, steps=10_000, width=512, height=512)) <= 2
    again = text_to_image(model=model, seed=90)
    again["4"]["inputs"]["filename_prefix"] = "again"
    host.read("/free", {"free_memory": True, "unload_models": True})
    assert np.array_equal(pixels(host, host.run(again))[0], expected)


@pytest.fixture
def fresh(tmp_path: Path, host: ComfyHost, model: str):
    with ComfyHost(tmp_path, pack_folder="a folder with spaces", options=["--preview-method", "none"]) as running:
        path = running.models / "checkpoints" / model
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((host.models / "checkpoints" / model).read_bytes())
        yield running


def test_a_fresh_server_paints_what_a_cancelled_one_paints(fresh: ComfyHost, host: ComfyHost, model: str) -> None:
    graph = text_to_image(model=model, seed=95)
    cancelled(host, text_to_image(model=model, seed=96, steps=10_000, width=512, height=512))
    assert np.array_equal(pixels(host, host.run(graph))[0], pixels(fresh, fresh.run(graph))[0])
    # Whoever says that there are to be no previews gets none; whoever says nothing does.
    for asked in (fresh, host):
        with Listener(asked) as heard:
            last = pixels(asked, asked.run(text_to_image(model=model, seed=97), client_id=heard.client_id))[0]
            heard.wait_for(lambda heard=heard: bool(heard.of("execution_success")))
        assert bool(heard.previews) == (asked is host)
    # Euler's last step ends where its last velocity leads: the last preview is the picture, but for JPEG's colours.
    preview = Image.open(io.BytesIO(heard.previews[-1])).resize((128, 128), Image.Resampling.BOX)
    luminance = [np.asarray(picture.convert("L"), dtype=float) for picture in (preview, Image.fromarray(last))]
    assert np.abs(luminance[0] - luminance[1]).mean() < 8
