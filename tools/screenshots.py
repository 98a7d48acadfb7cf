"""Makes the README's pictures of the editor: `python -m tools.screenshots`.

A first-time user's way, in the host's own frontend: a template is opened and run, a preset is applied, a request of the
API is imported.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.chromium import launched, profile
from tests.browser.editor import Editor
from tests.comfy_host import ROOT, ComfyHost

FOLDER = ROOT / "docs" / "editor"
VIEW = {"width": 1600, "height": 950}
TEMPLATE = "SD3 text to image"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ComfyHost(Path(folder)) as host, launched() as browser:
        context = profile(browser, VIEW)
        editor = Editor(context.new_page(), host, "nodes2", Path(folder))
        editor.open({"Comfy.Minimap.Visible": False, "LiteGraph.Canvas.MinFontSizeForLOD": 0})
        card = editor.templates().and_(editor.page.get_by_test_id(f"template-workflow-{TEMPLATE}"))
        card.scroll_into_view_if_needed()
        editor.page.wait_for_timeout(1000)
        keep(editor, "1-template")
        card.click()
        editor.page.wait_for_function("() => (window.app.rootGraph ?? window.app.graph).nodes.length > 3")
        editor.command("Comfy.Canvas.FitView")
        editor.run()
        editor.page.wait_for_timeout(1500)
        keep(editor, "2-run")
        with editor.tab("sd3local") as panel:
            fast = panel.locator('article[aria-label="Fast"]')
            fast.scroll_into_view_if_needed()
            fast.get_by_role("button", name="Apply").click()
            editor.command("Comfy.Canvas.FitView")
            editor.page.wait_for_timeout(1000)
            keep(editor, "3-preset")
        editor.command("sd3local.importRequest")
        example = ROOT / "tests" / "data" / "examples" / "clockwork-orchard-parade.json"
        text = example.read_text(encoding="utf-8")
        editor.page.get_by_role("textbox", name="API request").fill(text.replace('"steps": 28', '"steps": 0'))
        editor.page.get_by_role("button", name="Import", exact=True).click()
        editor.page.locator("dialog[open] [role=alert] li").first.wait_for()
        keep(editor, "4-request")


def keep(editor: Editor, name: str) -> None:
    """A small JPG of what the editor shows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    Image.open(editor.shot(name)).convert("RGB").save(FOLDER / f"{name}.jpg", quality=82, optimize=True)
    print(name)


if __name__ == "__main__":
    main()
