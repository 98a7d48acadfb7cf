"""What helps at the pack's nodes: judged values, greyed options, sizes, tokens, the outpainted frame, the mask."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.editor import Editor
from tools.starter.host import images

if TYPE_CHECKING:
    from playwright.sync_api import Locator

Expect = Callable[["Locator"], Any]
"""Playwright's assertions, which wait."""

# What the frontends' own mask editors say, without a GPU.
MASK_EDITOR = ("pan/zoom", "TypeGPU", "No available adapters")

HELPERS = "[data-panel='sd3local.panel']"


def add(editor: Editor, *kinds: str) -> list[int]:
    """Adds nodes beside each other, all of them in view."""
    ids = editor.graph(
        """(graph, kinds) => {
          const { canvas } = window.app
          canvas.emitBeforeChange()
          const ids = kinds.map((kind, index) => {
            const node = window.LiteGraph.createNode(kind)
            node.pos = [80 + index * 380, 90]
            graph.add(node)
            return node.id
          })
          canvas.emitAfterChange()
          return ids
        }""",
        list(kinds),
    )
    editor.page.evaluate("() => { const { ds } = window.app.canvas; ds.scale = 0.8; ds.offset = [60, 60] }")
    editor.settle()
    return ids


def said(editor: Editor, name: str) -> Locator:
    """What is said in one of the helpers' places, of all nodes."""
    return editor.page.locator(f"{HELPERS} .{name}")


def disabled(editor: Editor, node: int) -> set[str]:
    program = "(graph, id) => graph.getNodeById(id).widgets.filter((one) => one.disabled).map((one) => one.name)"
    return set(editor.graph(program, node))


@pytest.fixture
def seed_image(editor: Editor) -> str:
    """A picture that Load Image can load; it stays, because the editor asks for it when its tab is closed."""
    path = editor.host.input / "seed.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (512, 256), "blue").save(path)
    return path.name


def test_helpers(editor: Editor, seed_image: str) -> None:
    """One visit to the editor for all of them: to open it takes the most of the time."""
    # Its package is there once there is a browser.
    from playwright.sync_api import expect

    values_are_judged_and_options_without_effect_greyed(editor, expect)
    editor.new()
    sizes_are_chosen_and_tokens_counted(editor, expect)
    editor.new()
    the_frame_of_outpainting_is_dragged(editor, expect, seed_image)


def values_are_judged_and_options_without_effect_greyed(editor: Editor, expect: Expect) -> None:
    delivery, model, accelerator = add(editor, "SD3LocalDelivery", "SD3LocalModel", "SD3LocalAccelerator")
    expect(said(editor, "hint")).to_have_text(["No cache is on, so nothing is reused."])
    expect(said(editor, "problem")).to_have_count(0)
    values = editor.values(accelerator)

    editor.set(delivery, {"ttl": 10})
    editor.set(model, {"model": "gone.safetensors"})
    expect(said(editor, "problem")).to_have_count(2)
    expect(said(editor, "problem").nth(0)).to_contain_text("ttl is 10")
    expect(said(editor, "problem").nth(1)).to_contain_text("folder checkpoints")
    editor.shot("widgets-judged")
    editor.set(delivery, {"ttl": 100})
    editor.set(model, {"model": "sd3-nano"})
    expect(said(editor, "problem")).to_have_count(0)

    assert disabled(editor, accelerator) == set(values) - {"fbCache", "teaCache", "dbCache"}
    editor.set(accelerator, {"teaCache": True})
    expect(said(editor, "hint")).to_have_text(["A cache's settings count only where it is on."])
    assert disabled(editor, accelerator) == {"fbCacheThreshold", "dbCacheThreshold", "dbCacheSkipInterval"}
    if editor.vue:
        # Two of them are in view with the newest frontend, which folds advanced inputs away.
        rows = editor.page.locator(f"[data-node-id='{accelerator}'] [data-sd3local-greyed]")
        assert rows.count() in (2, 3)
    editor.set(accelerator, {"teaCache": False})
    # What the helpers say is no part of the workflow.
    expect(said(editor, "hint")).to_have_text(["No cache is on, so nothing is reused."])
    assert editor.values(accelerator) == values


def sizes_are_chosen_and_tokens_counted(editor: Editor, expect: Expect) -> None:
    sampler, prompt = add(editor, "SD3LocalSampler", "SD3LocalPrompt")
    size = editor.page.get_by_label("Size", exact=True)
    expect(size.locator("option:checked")).to_have_text("1:1 · 1024 x 1024 · 1.05 MP")
    size.select_option("1344x768")
    before = editor.values(sampler)
    assert (before["width"], before["height"]) == (1344, 768)
    editor.command("Comfy.Undo")
    expect(size.locator("option:checked")).to_have_text("1:1 · 1024 x 1024 · 1.05 MP")
    assert editor.values(sampler)["width"] == 1024
    editor.set(sampler, {"width": 512, "height": 512})
    expect(said(editor, "hint")).to_have_text(["SD3 paints best near 1 MP."])

    editor.set(prompt, {"positivePrompt": "red " * 80 + "end"})
    expect(said(editor, "sd3local-tokens")).to_contain_text("CLIP 83/77 (2 chunks)")
    expect(said(editor, "mark")).to_contain_text("red red red")
    editor.shot("widgets-tokens")
    editor.set(prompt, {"positivePrompt": "a red circle"})
    expect(said(editor, "sd3local-tokens")).to_contain_text("CLIP 5/77 · T5 5/256")
    expect(said(editor, "mark")).to_have_count(0)


def the_frame_of_outpainting_is_dragged(editor: Editor, expect: Expect, seed_image: str) -> None:
    editor.page.evaluate("() => window.app.refreshComboInNodes()")
    kinds = ("LoadImage", "SD3LocalInputs", "SD3LocalSampler", "SD3LocalOutpaint")
    load, inputs, sampler, outpaint = add(editor, *kinds)
    editor.set(load, {"image": seed_image})
    editor.connect(load, "IMAGE", inputs, "seedImage")
    editor.connect(inputs, "inputs", sampler, "inputs")
    editor.connect(outpaint, "outpaint", sampler, "outpaint")
    frame = said(editor, "sd3local-outpaint")
    expect(frame).to_contain_text("512 x 256 → 512 x 256")
    handle = frame.locator(".handle.right").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    editor.page.mouse.move(x, y)
    editor.page.mouse.down()
    editor.page.mouse.move(x + 30, y, steps=4)
    editor.page.mouse.up()
    frame.get_by_role("slider", name="bottom").press("ArrowUp")
    margins = editor.values(outpaint)
    assert margins["right"] > 0 and margins["right"] % 64 == 0
    assert margins == {"top": 0, "right": margins["right"], "bottom": 64, "left": 0}
    frame.get_by_role("button", name="Apply to sampler").click()
    size = editor.values(sampler)
    assert (size["width"], size["height"]) == (512 + margins["right"], 320)
    editor.shot("widgets-outpaint")


def test_a_painted_mask_counts(editor: Editor, seed_image: str) -> None:
    kinds = ("LoadImage", "SD3LocalInputs", "SD3LocalSampler", "SD3LocalModel", "SD3LocalPrompt", "PreviewImage")
    load, inputs, sampler, model, prompt, preview = add(editor, *kinds)
    editor.set(load, {"image": seed_image})
    editor.set(model, {"model": "sd3-nano"})
    editor.set(prompt, {"positivePrompt": "a red circle"})
    editor.set(sampler, {"width": 512, "height": 256, "steps": 2, "seed": 7, "control_after_generate": "fixed"})
    editor.connect(load, "IMAGE", inputs, "seedImage")
    editor.connect(inputs, "inputs", sampler, "inputs")
    editor.connect(model, "model", sampler, "model")
    editor.connect(prompt, "prompt", sampler, "prompt")
    editor.connect(sampler, "images", preview, "images")
    editor.page.get_by_role("button", name="Paint the mask").click()
    painter = editor.page.locator(".mask-editor-dialog, [role=dialog]", has_text="Mask").first
    painter.wait_for()
    assert [str(link[2]) for link in editor.state()["links"] if [str(link[0]), link[1]] == [str(load), 1]] == [
        str(inputs)
    ]
    canvas = painter.locator("canvas").first
    canvas.wait_for()
    # It shows the picture before it takes strokes.
    editor.page.wait_for_timeout(500)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    editor.page.mouse.move(x - 40, y)
    editor.page.mouse.down()
    editor.page.mouse.move(x + 40, y, steps=8)
    editor.page.mouse.up()
    editor.shot("widgets-mask")
    painter.get_by_role("button", name="Save").click()
    painter.wait_for(state="hidden")
    painted = editor.values(load)["image"]
    assert painted != seed_image
    run = editor.run()
    assert run["status"]["status_str"] == "success", run["status"]
    with Image.open(editor.host.input / painted.removesuffix(" [input]")) as picture:
        kept = np.asarray(picture.getchannel("A")) == 255
    assert 0.005 < 1 - kept.mean() < 0.5
    (made,) = images(run)
    with Image.open(BytesIO(editor.host.view(made))) as picture:
        blue = (np.asarray(picture.convert("RGB")) == (0, 0, 255)).all(axis=2)
    assert blue[kept].all() and not blue[~kept].all()
    editor.complaints = [one for one in editor.complaints if not any(known in one for known in MASK_EDITOR)]
