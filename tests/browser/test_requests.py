"""API requests in and out of the editor, in both frontends and both renderers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.parse import parse

from tests.browser.conftest import FRONTENDS
from tests.browser.editor import RENDERERS, Editor
from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ROOT, ComfyHost
from tests.endpoint import task
from tests.host.test_editor_routes import png, uri

EXAMPLES = sorted((ROOT / "tests" / "data" / "examples").glob("*.json"))


@pytest.fixture(autouse=True, scope="module")
def published(editor_host: ComfyHost) -> Any:
    """A model of the published layout and name, so small that the requests' sizes are quick."""
    encoders = {"clip_l": ClipSpec(64, 6), "clip_g": ClipSpec(64, 6, 64)}
    spec = CheckpointSpec(TransformerSpec(blocks=1, width=64, table=128), VAESpec((8, 16, 16, 16)), **encoders)
    path = write_checkpoint(editor_host.models / "checkpoints" / "sd3_medium.safetensors", spec, torch.float16)
    yield
    path.unlink()


def import_text(editor: Editor, text: str) -> None:
    editor.command("sd3local.importRequest")
    editor.page.get_by_role("textbox", name="API request").fill(text)
    editor.page.get_by_role("button", name="Import", exact=True).click()


def opened(editor: Editor) -> None:
    """Waits until what was imported is there."""
    editor.page.locator("dialog[open]").wait_for(state="detached")
    editor.page.wait_for_function("() => (window.app.rootGraph ?? window.app.graph).nodes.length > 3")
    editor.settle()


def copied(editor: Editor) -> Any:
    editor.page.evaluate("() => navigator.clipboard.writeText('')")
    editor.command("sd3local.copyRequest")
    editor.page.wait_for_function("() => navigator.clipboard.readText()")
    return json.loads(editor.page.evaluate("() => navigator.clipboard.readText()"))


def test_the_api_s_examples_come_in_run_and_go_out_equal(editor: Editor, frontend: str) -> None:
    # Each is run once; running all of them everywhere would show no more.
    run = FRONTENDS.index(frontend) * len(RENDERERS) + [*RENDERERS].index(editor.renderer)
    for index, path in enumerate(EXAMPLES):
        example = json.loads(path.read_text("utf-8"))
        import_text(editor, json.dumps({"request": example["request"]}))
        opened(editor)
        assert parse(copied(editor)) == parse(example["request"])
        if index == run:
            editor.shot(f"request-{path.stem}")
            ended = editor.run()
            assert ended["status"]["status_str"] == "success", ended["status"]
            (delivery,) = editor.graph(
                "graph => graph.nodes.filter((n) => n.type === 'SD3LocalDelivery').map((n) => n.id)"
            )
            size = (example["request"]["width"], example["request"]["height"])
            assert editor.picture_of(delivery) == size
        editor.new()


def test_what_is_wrong_is_listed_beside_the_text(editor: Editor) -> None:
    import_text(editor, '{"steps": 1,')
    errors = editor.page.locator("dialog[open] [role=alert] li")
    errors.filter(has_text="no JSON").wait_for()
    editor.page.get_by_role("textbox", name="API request").fill(json.dumps([task(steps=0, width=65), task(model="x")]))
    editor.page.get_by_role("button", name="Import", exact=True).click()
    errors.filter(has_text="Request 2").first.wait_for()
    told = "\n".join(errors.all_inner_texts())
    for part in ("Request 1: width is 65", "Request 1: steps is 0", "Request 2: model is 'x'"):
        assert part in told
    editor.shot("request-errors")
    assert editor.graph("graph => graph.nodes.length") == 0
    editor.page.get_by_role("button", name="Cancel", exact=True).click()


def test_dropped_requests_and_pictures_open(editor: Editor, tmp_path: Path) -> None:
    """Two requests with everything in them, by one file; the graph of a picture, and its request."""
    base = {"model": "sd3-nano", "width": 64, "height": 64, "steps": 2}
    picture = uri(png())
    whole = task(
        **{**base, "width": 128},
        seed=123456789012,
        negativePrompt="blue",
        strength=0.7,
        inputs={"seedImage": picture, "maskImage": picture},
        outpaint={"left": 64},
        lora=[{"model": "nano-stripes", "weight": 0.25}, {"model": "nano-stripes", "weight": -1}],
        controlNet=[{"model": "nano-edges", "guideImage": picture, "weight": 0.5}],
        ipAdapters=[{"model": "nano-reference", "guideImages": [picture, picture]}],
        acceleratorOptions={"fbCache": True, "fbCacheThreshold": 0.2},
        outputFormat="JPG",
        numberResults=2,
    )
    file = tmp_path / "requests.json"
    file.write_text(json.dumps([whole, task(**base)]))
    editor.drop([file])
    opened(editor)
    assert editor.graph("graph => graph._groups.length") == 2
    back = copied(editor)
    assert [parse(one) for one in back] == [parse(one) for one in json.loads(file.read_text())]
    editor.shot("requests-dropped")
    run = editor.run()
    assert run["status"]["status_str"] == "success", run["status"]

    # A JPG, of which ComfyUI itself reads nothing.
    saved = editor.state()
    image = next(
        image for output in run["outputs"].values() for image in output.get("images", ()) if image["type"] == "output"
    )
    (tmp_path / "picture.jpg").write_bytes(editor.host.view(image))
    editor.new()
    editor.drop([tmp_path / "picture.jpg"])
    editor.wait_for_nodes(len(saved["nodes"]))
    assert editor.state() == saved
    editor.new()
    editor.command("sd3local.importRequest")
    with editor.page.expect_file_chooser() as chooser:
        editor.page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files(tmp_path / "picture.jpg")
    editor.page.wait_for_function("() => document.querySelector('dialog textarea').value.includes('taskType')")
    editor.page.get_by_role("button", name="Import", exact=True).click()
    opened(editor)
    assert copied(editor)["positivePrompt"] == whole["positivePrompt"]
