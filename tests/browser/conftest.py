"""A browser with ComfyUI's editor in it, for both frontends and both renderers.

A test that takes `editor` runs four times, and fails for anything that the page says in its console which the editor
would not say without the pack. To watch one of them:

    HEADED=1 python3 run.py test "tests/browser/test_editor.py::test_text_to_image[1.32.9-classic]"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import launched, profile
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


def options_of(frontend: str) -> list[str]:
    """ComfyUI's options to serve a frontend; the newest one is installed for the tests alone."""
    if frontend == FRONTENDS[0]:
        return []
    packages = python_packages(HERE / "frontend.txt", "--no-deps", "--require-hashes")
    return ["--front-end-root", str(packages / "comfyui_frontend_package" / "static")]


@pytest.fixture(scope="session", params=FRONTENDS)
def frontend(request: pytest.FixtureRequest) -> str:
    """The version of the editor: that of the host, and the newest."""
    return request.param


@pytest.fixture(scope="session")
def editor_host(frontend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    """A ComfyUI that serves the frontend."""
    with ComfyHost(tmp_path_factory.mktemp("editor"), options=options_of(frontend)) as host:
        yield host


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, which ends with the module: while it runs, no other event loop can run in this thread."""
    with launched(headless="HEADED" not in os.environ) as browser:
        yield browser


@pytest.fixture(scope="module", params=RENDERERS)
def opened(request: pytest.FixtureRequest, frontend: str, editor_host: ComfyHost, browser: Browser) -> Iterator[Editor]:
    """The editor in a new profile of the browser, which the tests of a module share: to load it takes seconds."""
    context = profile(browser, VIEW)
    screenshots = SCREENSHOTS / f"{frontend}-{request.param}"
    yield Editor(context.new_page(), editor_host, request.param, screenshots).open()
    context.close()


@pytest.fixture
def editor(request: pytest.FixtureRequest, opened: Editor) -> Iterator[Editor]:
    """The editor with a blank workflow."""
    opened.new()
    failed = request.session.testsfailed
    yield opened
    if request.session.testsfailed > failed:
        opened.shot(f"failed-{request.node.originalname}")
        # Whatever it left open is not the next one's.
        opened.reload()
    complaints, opened.complaints = opened.complaints, []
    assert not complaints, "\n".join(complaints)
