"""Chromium, which is installed where it is missing, if this is root on a Debian, as in continuous integration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.installed import python_packages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-liberation")


HERE = Path(__file__).resolve().parent


class NoChromium(Exception):
    """There is no Chromium, and none can be installed."""


@contextmanager
def launched(headless: bool = True) -> Iterator[Browser]:
    """Chromium, driven by Playwright. Until its end no other event loop can run in this thread."""
    packages = str(python_packages(HERE / "playwright.txt"))
    if packages not in sys.path:
        sys.path.append(packages)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"], headless=headless)
        yield browser
        browser.close()


def profile(browser: Browser, view: Mapping[str, int]) -> BrowserContext:
    """A new profile with windows of the size `view`, in which pages may use the clipboard."""
    context = browser.new_context(viewport=view, permissions=["clipboard-read", "clipboard-write"])
    # The first visit's advertisement.
    context.add_init_script('localStorage.setItem("vueNodesBannerDismissed", "true")')
    return context


def chromium(environ: Mapping[str, str] = os.environ) -> Path:
    """The browser's program. Raises NoChromium, which says what to do."""
    found = find(environ)
    if found is None and can_install(environ):
        install()
        found = find(environ)
    if found is None:
        raise NoChromium(
            "The browser tests need Chromium, and none of "
            f"{', '.join(NAMES)} is on the PATH. Install one (Debian: apt-get install chromium; Ubuntu: snap install "
            "chromium; macOS and Windows: Google Chrome), or set CHROMIUM_PATH to its program."
        )
    return found


def find(environ: Mapping[str, str]) -> Path | None:
    """The program that CHROMIUM_PATH names, else the first that is on the PATH. Raises NoChromium for a wrong name."""
    if named := environ.get("CHROMIUM_PATH"):
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise NoChromium(f"CHROMIUM_PATH is {named!r}, which is no program.")
        return Path(named)
    programs = (shutil.which(name, path=environ.get("PATH", "")) for name in NAMES)
    return next((Path(program) for program in programs if program), None)


def can_install(environ: Mapping[str, str]) -> bool:
    """Whether this is root on a Debian: what a container of continuous integration is, and a person seldom."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return is_root and shutil.which("apt-get", path=environ.get("PATH", "")) is not None


def install() -> None:
    """Raises CalledProcessError with what apt-get said."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "-q", *command], env=quiet, check=True, stdin=subprocess.DEVNULL)
