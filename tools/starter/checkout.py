"""Where things lie in a checkout, and how the starter speaks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class StarterError(Exception):
    """Something the user can act on; shown as it is, without a traceback."""


def say(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True)
class Checkout:
    """The folders that the starter uses, all below `root`."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def lock(self) -> Path:
        return self.root / "requirements.lock"

    @property
    def comfyui_copy(self) -> Path:
        """ComfyUI's code, when the user has not named his own."""
        return self.root / ".host" / "ComfyUI"

    @property
    def work(self) -> Path:
        """What runs leave behind: the host's base folder, its log."""
        return self.root / ".work"

    @property
    def output(self) -> Path:
        return self.root / "output"
