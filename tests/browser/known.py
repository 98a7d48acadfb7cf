"""What ComfyUI's editor says in its console by itself: `python -m tests.browser.known` shows it, without the pack."""

from __future__ import annotations

import tempfile
from pathlib import Path

KNOWN = (
    # Files that a new user has none of.
    "/user.css",
    "/favicon.ico",
    "/userdata?dir=workflows",
    "/userdata?dir=subgraphs",
    "/userdata/comfy.templates.json",
    "/userdata/workflows%2F.index.json",
    # A help page in the user's language is asked for first.
    "/en.md",
    # What ComfyUI 0.3.75 has no route for yet.
    "/api/jobs",
    "/templates/index_logo.json",
    "Jobs API",
    "JobsApiError",
    # Its own deprecations, and its own faults.
    "The legacy queue/history menu is deprecated",
    "ComfyApp.open_maskeditor is deprecated",
    "Invalid layout total size",
    "input.link is deprecated",
    "Cannot read properties of undefined (reading 'id')\n    at onChange",
)
"""Parts of messages, or of the addresses that they are about, which both frontends give on this host."""


def main() -> None:
    from tests.browser.chromium import launched
    from tests.browser.conftest import FRONTENDS, options_of
    from tests.browser.editor import RENDERERS, Editor
    from tests.comfy_host import ComfyHost

    for frontend in FRONTENDS:
        options = [*options_of(frontend), "--disable-all-custom-nodes"]
        folder = tempfile.TemporaryDirectory()
        with folder as base, ComfyHost(Path(base), options=options) as host, launched() as browser:
            for renderer in RENDERERS:
                page = browser.new_page()
                page.on(
                    "console", lambda one: one.type in ("error", "warning") and print(one.text, one.location["url"])
                )
                print(frontend, renderer)
                editor = Editor(page, host, renderer, Path(base)).open()
                editor.select(editor.make("KSampler"))
                print("not known:", *editor.complaints)
                page.close()


if __name__ == "__main__":
    main()
