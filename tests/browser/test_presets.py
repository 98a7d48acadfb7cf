"""Presets in the editor: saved, applied, undone and passed on, in both frontends and both renderers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.editor import Editor

if TYPE_CHECKING:
    from playwright.sync_api import Locator

SETTINGS = {"steps": 33, "CFGScale": 4.5, "scheduler": "DPM++ 2M", "seed": 12, "control_after_generate": "fixed"}
KEPT = {name: value for name, value in SETTINGS.items() if name not in ("seed", "control_after_generate")}


def sampler_of(editor: Editor) -> int:
    node = editor.make("SD3LocalSampler")
    editor.set(node, SETTINGS)
    return node


def chosen(editor: Editor, node: int) -> dict[str, object]:
    values = editor.values(node)
    return {name: values[name] for name in KEPT}


def save(editor: Editor, name: str, about: str = "") -> None:
    """Fills in the dialog that saves a preset."""
    page = editor.page
    page.get_by_placeholder("Name", exact=True).fill(name)
    page.get_by_placeholder("Description").fill(about)
    page.locator("dialog[open]").get_by_role("button", name="Save", exact=True).click()
    page.locator("dialog[open]").wait_for(state="detached")


def cards(panel: Locator) -> list[str]:
    panel.locator("article").first.wait_for()
    return [card.get_attribute("aria-label") or "" for card in panel.locator("article").all()]


def card(panel: Locator, name: str) -> Locator:
    return panel.locator(f'article[aria-label="{name}"]')


def files(editor: Editor) -> list[str]:
    return json.loads(editor.host.read("/sd3local/presets"))["files"]


def in_menu(editor: Editor, node: int, entry: str, icon: str) -> None:
    """Chooses in the node's menu; in the toolbox where the frontend keeps the menu to itself."""
    if editor.vue and editor.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__ === '1.32.9'"):
        editor.select(node)
        editor.page.locator(f"button:has(.{icon}):visible").first.click()
        return
    found = editor.menu(node).filter(has_text=entry).first
    found.hover()
    found.click()


def discard_all(editor: Editor) -> None:
    for file in files(editor):
        editor.page.evaluate("file => window.app.api.deleteUserData(`sd3local/presets/${file}`)", file)


def test_a_preset_is_saved_applied_undone_and_passed_on(editor: Editor, tmp_path: Path) -> None:
    discard_all(editor)
    page = editor.page
    sampler = sampler_of(editor)
    in_menu(editor, sampler, "Save as preset", "pi-bookmark")
    assert page.locator("dialog[open] label").count() == len(editor.values(sampler))
    save(editor, "Mine / 1", "Just so")
    written = json.loads(editor.host.read("/userdata/sd3local%2Fpresets%2Fmine-1.json"))
    assert {name: written["nodes"][0]["values"][name] for name in KEPT} == KEPT
    # A seed is seldom meant, and starts out left out.
    assert "seed" not in written["nodes"][0]["values"]

    editor.reload()
    editor.new()
    sampler = editor.make("SD3LocalSampler")
    before = editor.state()
    assert chosen(editor, sampler) != KEPT
    in_menu(editor, sampler, "Apply a preset", "pi-bookmark-fill")
    editor.shot("preset-menu")
    page.get_by_text("Mine / 1").last.click()
    editor.settle()
    assert chosen(editor, sampler) == KEPT
    page.keyboard.press("Escape")
    editor.command("Comfy.Undo")
    page.wait_for_function("() => (window.app.rootGraph ?? window.app.graph).nodes[0]?.widgets[4].value !== 33")
    assert editor.state() == before

    with editor.tab("sd3local") as panel:
        names = cards(panel)
        assert names[0] == "Mine / 1" and {"Quality", "Fast", "Accelerator: eager"} <= set(names)
        # The pack's own can be neither renamed nor deleted.
        assert card(panel, "Quality").get_by_role("button", name="Delete").count() == 0
        editor.shot("preset-panel")
        panel.get_by_role("searchbox").fill("just SO")
        assert cards(panel) == ["Mine / 1"]
        with page.expect_download() as download:
            card(panel, "Mine / 1").get_by_role("button", name="Export as file").click()
        exported = tmp_path / download.value.suggested_filename
        download.value.save_as(exported)
        assert json.loads(exported.read_text("utf-8")) == written
        card(panel, "Mine / 1").get_by_role("button", name="Copy as text").click()
        page.wait_for_function("() => navigator.clipboard.readText().then((text) => text.includes('Mine / 1'))")
        card(panel, "Mine / 1").get_by_role("button", name="Rename").click()
        page.locator("dialog[open] input").fill("Yours")
        page.keyboard.press("Enter")
        panel.get_by_role("searchbox").fill("")
        card(panel, "Yours").get_by_role("button", name="Duplicate").click()
        card(panel, "Yours (copy)").wait_for()
        card(panel, "Yours").get_by_role("button", name="Delete").click()
        page.locator("dialog[open]").get_by_role("button", name="Delete").click()
        card(panel, "Yours").wait_for(state="detached")
        card(panel, "Yours (copy)").get_by_role("button", name="Delete").click()
        page.locator("dialog[open]").get_by_role("button", name="Delete").click()
        card(panel, "Yours (copy)").wait_for(state="detached")
        assert files(editor) == []

        # By a file, dropped on the canvas; by pasted text.
        editor.drop([exported])
        card(panel, "Mine / 1").wait_for()
        panel.get_by_role("button", name="Paste").click()
        page.wait_for_function("() => document.querySelectorAll('article[aria-label=\\'Mine / 1\\']').length === 2")
        card(panel, "Mine / 1").first.get_by_role("button", name="Apply").click()
        editor.settle()
        assert chosen(editor, sampler) == KEPT


def test_what_can_t_be_applied_is_told_and_links_stay(editor: Editor, tmp_path: Path) -> None:
    """A preset of two nodes of a chain, with an input that is gone, a model that is missing and a linked value."""
    discard_all(editor)
    first, second = editor.make("SD3LocalLora"), editor.make("SD3LocalLora")
    editor.connect(first, "lora", second, "lora")
    sampler = sampler_of(editor)
    editor.connect(second, "lora", sampler, "lora")
    constant = editor.make("PrimitiveInt")
    editor.connect(constant, "INT", sampler, "steps")
    nodes = [
        {"node": "SD3LocalLora", "values": {"weight": 0.1, "model": "gone.safetensors"}},
        {"node": "SD3LocalLora", "values": {"weight": 0.2}},
        {"node": "SD3LocalSampler", "values": {"steps": 9, "CFGScale": 3.5, "bygone": 1}},
        {"node": "SD3LocalSafety", "values": {"checkContent": True}},
    ]
    file = tmp_path / "chain.json"
    file.write_text(json.dumps({"format": "sd3local.preset", "version": 1, "name": "Chain", "nodes": nodes}))
    editor.drop([file])
    told = editor.page.locator("dialog[open] li")
    told.filter(has_text="no such input").wait_for()
    editor.page.locator("dialog[open]").get_by_role("button", name="Close").click()
    steps = editor.values(sampler)["steps"]
    editor.page.evaluate("() => window.app.canvas.deselectAll()")
    with editor.tab("sd3local") as panel:
        card(panel, "Chain").get_by_role("button", name="Apply").click()
        told.first.wait_for()
        lines = "\n".join(told.all_inner_texts())
        for part in ("bygone", "gone.safetensors", "steps comes from another node", "1 of 1 SD3LocalSafety"):
            assert part in lines
        editor.shot("preset-remarks")
        editor.page.locator("dialog[open]").get_by_role("button", name="Close").click()
    assert [editor.values(node)["weight"] for node in (first, second)] == [0.1, 0.2]
    values = editor.values(sampler)
    assert values["CFGScale"] == 3.5 and values["steps"] == steps
    # What was wrong with it is kept in its file.
    assert json.loads(editor.host.read("/userdata/sd3local%2Fpresets%2Fchain.json"))["nodes"] == nodes


def test_the_panel_tells_how_things_stand(editor: Editor) -> None:
    with editor.tab("sd3local") as panel:
        panel.get_by_text("sd3-nano", exact=True).wait_for()
        text = panel.inner_text()
        assert "SD3 (8 blocks, width 128)" in text and f"{editor.host.url}/sd3local/v1" in text
        panel.get_by_role("button", name="Copy", exact=True).click()
        editor.page.wait_for_function(
            "url => navigator.clipboard.readText().then((text) => text === url)", arg=f"{editor.host.url}/sd3local/v1"
        )
        panel.get_by_role("button", name="Names of models").click()
        dialog = editor.page.locator("dialog[open]")
        dialog.get_by_role("button", name="Add").click()
        dialog.get_by_placeholder("runware:5@1").last.fill("civitai:7@8")
        dialog.get_by_role("combobox", name="File").last.select_option("sd3-nano")
        editor.shot("models")
        dialog.get_by_role("button", name="Save").click()
        dialog.wait_for(state="detached")
        assert json.loads(editor.host.read("/sd3local/models"))["table"]["model"] == {"civitai:7@8": "sd3-nano"}
        editor.page.evaluate("() => window.app.api.fetchApi('/sd3local/models', { method: 'PUT', body: '{}' })")
