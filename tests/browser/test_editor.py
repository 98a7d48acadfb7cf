"""What a person does in ComfyUI's editor with the pack's nodes, in both frontends and both renderers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.browser.editor import Editor, shape
from tests.comfy_host import ROOT

PROMPT = "a red circle on the left, blue background"
FROZEN = ROOT / "tests" / "data" / "workflows"
TEMPLATES = {path.stem: path for path in sorted((ROOT / "example_workflows").glob("*.json"))}


@pytest.fixture
def names(editor: Editor) -> Iterator[dict[str, str]]:
    """The pack's nodes as a person knows them: id -> name."""
    yield {
        kind: info["display_name"]
        for kind, info in editor.host.object_info().items()
        if kind.startswith("SD3Local") and not info.get("deprecated")
    }


def test_every_node_is_found_saved_and_opened_again(editor: Editor, names: dict[str, str]) -> None:
    added = {kind: editor.add(name) for kind, name in names.items()}
    found = editor.graph("graph => Object.fromEntries(graph.nodes.map(({ id, type }) => [type, id]))")
    assert found == added
    editor.shot("nodes")

    # Values of a person's own, so that what comes back cannot be what a new node has.
    editor.set(added["SD3LocalSampler"], {"width": 192, "steps": 5, "seed": 77, "control_after_generate": "fixed"})
    editor.set(added["SD3LocalPrompt"], {"positivePrompt": "two\nlines", "clipSkip": 1})
    editor.set(added["SD3LocalLora"], {"weight": -0.35})
    editor.set(added["SD3LocalDelivery"], {"outputFormat": "PNG"})
    editor.connect(added["SD3LocalModel"], "model", added["SD3LocalSampler"], "model")
    editor.connect(added["SD3LocalLora"], "lora", added["SD3LocalSampler"], "lora")
    saved = editor.state()
    assert len(saved["links"]) == 2
    name = f"all nodes {editor.renderer}"
    editor.save_as(name)
    assert shape(json.loads(editor.host.read(f"/userdata/workflows%2F{name.replace(' ', '%20')}.json"))) == saved
    editor.reload()
    assert editor.state() == saved
    editor.new()
    editor.reopen(name)
    assert editor.state() == saved
    editor.shot("reopened")


def test_text_to_image(editor: Editor, names: dict[str, str]) -> None:
    model, prompt, sampler, delivery = (
        editor.add(names[f"SD3Local{name}"]) for name in ("Model", "Prompt", "Sampler", "Delivery")
    )
    editor.set(model, {"model": "sd3-nano"})
    editor.set(prompt, {"positivePrompt": PROMPT})
    editor.set(sampler, {"width": 128, "height": 128, "steps": 4, "seed": 7, "control_after_generate": "fixed"})
    editor.connect(model, "model", sampler, "model")
    editor.connect(prompt, "prompt", sampler, "prompt")
    editor.drag(sampler, 2, delivery, 0)
    links = {link[4] for link in editor.state()["links"]}
    assert links == {"SD3_MODEL", "SD3_PROMPT", "SD3_RESULT"}
    run = editor.run()
    assert run["status"]["status_str"] == "success", run["status"]
    assert editor.picture_of(delivery) == (128, 128)
    editor.show(delivery)
    editor.shot("text-to-image")
    (image,) = run["outputs"][str(delivery)]["images"]
    pixels = np.asarray(Image.open(io.BytesIO(editor.host.view(image))).convert("RGB")).astype(float)
    left, border = pixels[40:88, 20:60].mean((0, 1)), pixels[:8].mean((0, 1))
    assert left[0] > left[2] and border[2] > border[0], "no red circle on blue"


def test_every_node_has_a_help_page(editor: Editor, names: dict[str, str]) -> None:
    missed: list[str] = []
    editor.page.on("response", lambda answer: answer.status >= 400 and missed.append(answer.url))
    for kind, name in names.items():
        page = editor.help(editor.make(kind))
        page.locator("h1", has_text=name).wait_for()
        assert len(page.inner_text()) > 200
        pictures = page.locator("img")
        for index in range(pictures.count()):
            pictures.nth(index).scroll_into_view_if_needed()
            width = pictures.nth(index).evaluate("image => image.decode().then(() => image.naturalWidth, () => 0)")
            assert width > 0, f"{kind}: {pictures.nth(index).get_attribute('src')}"
        editor.shot(f"help-{kind}")
        editor.new()
    # The editor looks for a page in the user's language first.
    wanted = [address for address in missed if "/docs/" in address and not address.endswith("/en.md")]
    assert not [address for address in wanted if "sd3-local" in address]


def test_every_template_opens(editor: Editor) -> None:
    cards = editor.templates()
    editor.page.get_by_test_id(f"template-workflow-{min(TEMPLATES)}").wait_for()
    shown = {card.get_attribute("data-testid").removeprefix("template-workflow-") for card in cards.all()}
    assert shown == set(TEMPLATES)
    for name, path in TEMPLATES.items():
        card = editor.templates().and_(editor.page.get_by_test_id(f"template-workflow-{name}"))
        card.scroll_into_view_if_needed()
        picture = card.locator("img").first
        picture.wait_for()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth, () => 0)") > 0
        card.click()
        wanted = shape(json.loads(path.read_text(encoding="utf-8")))
        editor.wait_for_nodes(len(wanted["nodes"]))
        assert editor.state() == wanted, name
        editor.shot(f"template-{name}")
        # Two templates may have as many nodes, and the later one is not the earlier.
        editor.new()


def test_workflows_of_earlier_releases_open(editor: Editor, frontend: str) -> None:
    """Dropped on the canvas, with the values and links that they were saved with; within subgraphs too."""
    paths = sorted(FROZEN.glob(f"*/editor-{frontend}/*.json"))
    assert len(paths) >= 3
    for path in paths:
        saved = json.loads(path.read_text(encoding="utf-8"))
        editor.drop([path])
        editor.wait_for_nodes(len(saved["nodes"]))
        found = editor.graph("graph => graph.serialize()")
        within = [
            {part["id"]: shape(part)["nodes"] for part in (one.get("definitions") or {}).get("subgraphs", ())}
            for one in (found, saved)
        ]
        assert list(within[0]) == list(within[1]), path
        # 1.32.9 confuses widgets within subgraphs when it opens what it saved itself.
        if not (within[0] and frontend == "1.32.9"):
            assert shape(found) == shape(saved), path
            assert within[0] == within[1], path
        editor.shot(f"frozen-{path.stem}")
        editor.new()
