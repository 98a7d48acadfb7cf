"""ComfyUI's own modules in this process, for comparisons: no server, no editor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.comfy_host import comfyui_folder


def import_comfy(base: Path, options: Sequence[str] = ("--cpu",)) -> ModuleType:
    """The package `comfy` with its `sd` and `samplers`; `base` is ComfyUI's base folder, with `models` in it.

    `options` are ComfyUI's own, read once: a later call changes nothing. Its neighbours (`nodes`, `folder_paths`) can
    be imported afterwards. Raises FileNotFoundError where there is no ComfyUI.
    """
    folder = comfyui_folder()
    if not (folder / "comfy" / "sd.py").is_file():
        raise FileNotFoundError(f"There is no ComfyUI at {folder}. Run: python3 run.py setup")
    # First, because the pack's own folder `nodes` would hide ComfyUI's module of that name.
    sys.path.insert(0, str(folder))
    arguments = sys.argv
    sys.argv = ["main.py", "--base-directory", str(base), *options]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args  # parses sys.argv, so before anything that asks for a device
        import comfy.model_management
        import comfy.samplers
        import comfy.sd
    finally:
        sys.argv = arguments
    return comfy
