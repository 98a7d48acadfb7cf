"""A browser with ComfyUI's editor in it, for both frontends and both renderers.

A test that takes `editor` runs four times, each time with a profile of its own, and fails for anything that the page
says in its console which the editor would not say without the pack. To watch one of them:

    HEADED=1 python3 run.py test "tests/browser/test_editor.py::test_text_to_image[1.32.9-classic]"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import chromium
from tests.browser.editor import RENDERERS, Editor
from tests.comfy_host import ROOT, ComfyHost
from tests.installed import python_packages

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).resolve().parent
SCREENSHOTS = ROOT / ".work" / "screenshots"
FRONTENDS = ("1.32.9", "1.58.1")
VIEW = {"width": 1600, "height": 1000}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if SCREENSHOTS.exists():
        terminalreporter.write_line(f"screenshots: {SCREENSHOTS}")


@pytest.fixture(scope="session", params=FRONTENDS)
def frontend(request: pytest.FixtureRequest) -> str:
    """The version of the editor: that of the host, and the newest."""
    return request.param


@pytest.fixture(scope="session")
def editor_host(frontend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    """A ComfyUI that serves the frontend."""
    options: list[str] = []
    if frontend != FRONTENDS[0]:
        packages = python_packages(HERE / "frontend.txt", "--no-deps", "--require-hashes")
        options = ["--front-end-root", str(packages / "comfyui_frontend_package" / "static")]
    with ComfyHost(tmp_path_factory.mktemp("editor"), options=options) as host:
        yield host


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It ends with the module: while it runs, no other event loop can run in this thread."""
    packages = str(python_packages(HERE / "playwright.txt"))
    if packages not in sys.path:
        sys.path.append(packages)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"], headless="HEADED" not in os.environ
        )
        yield browser
        browser.close()


@pytest.fixture(params=RENDERERS)
def editor(request: pytest.FixtureRequest, frontend: str, editor_host: ComfyHost, browser: Browser) -> Iterator[Editor]:
    """The editor with a blank workflow, in a new profile of the browser."""
    renderer = request.param
    context = browser.new_context(viewport=VIEW, permissions=["clipboard-read", "clipboard-write"])
    # The first visit's advertisement.
    context.add_init_script('localStorage.setItem("vueNodesBannerDismissed", "true")')
    screenshots = SCREENSHOTS / f"{frontend}-{renderer}"
    editor = Editor(context.new_page(), editor_host, renderer, screenshots)
    failed = request.session.testsfailed
    try:
        yield editor.open()
    finally:
        if request.session.testsfailed > failed:
            editor.shot(f"failed-{request.node.originalname}")
        context.close()
    assert not editor.complaints, "\n".join(editor.complaints)
