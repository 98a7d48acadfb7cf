"""The optional package ultralytics, imported without what its import does to the rest of the program."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from ..errors import RequestError

INSTALL = 'pip install "ultralytics-opencv-headless>=8.4.190"'

# Read once, when the package is imported: it is to install nothing, to fetch and report nothing, to write nothing on
# the console, and to run nothing that it finds in a file.
SETTINGS = {
    "ULTRALYTICS_SAFE_LOAD": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
}


def load_library(*modules: str) -> list[ModuleType]:
    """Modules of ultralytics by their full names. Raises RequestError where the package is missing or unusable."""
    if "ultralytics" not in sys.modules and find_spec("ultralytics") is None:
        raise RequestError(
            "missingUltralytics",
            "Finding faces needs the package ultralytics (AGPL-3.0), which is not installed. Install it into "
            f"ComfyUI's Python and start ComfyUI again: {INSTALL}",
            "ultralytics",
        )
    try:
        if "ultralytics" in sys.modules:
            return [importlib.import_module(name) for name in modules]
        with _nothing_else_changed():
            return [importlib.import_module(name) for name in modules]
    except Exception as error:
        raise RequestError(
            "unsupportedUltralytics",
            f"The package ultralytics cannot be used ({type(error).__name__}: {error}). Update it in ComfyUI's Python "
            f"and start ComfyUI again: {INSTALL}",
            "ultralytics",
        ) from error


@contextmanager
def _nothing_else_changed() -> Iterator[None]:
    """Puts back what importing ultralytics changes for everyone: environment, print options, filters of warnings,
    OpenCV's threads and readers, and the functions that it replaces in torch and Pillow.
    """
    # First, because OpenCV changes it too.
    environment = dict(os.environ)
    import cv2
    import numpy as np
    import torch
    from PIL import Image
    from torch._tensor_str import PRINT_OPTS

    filters, printing, tensors = list(warnings.filters), np.get_printoptions(), dict(vars(PRINT_OPTS))
    threads = cv2.getNumThreads()
    replaced = [
        (owner, name, getattr(owner, name))
        for owner, names in ((torch, ("save", "load")), (Image, ("open",)), (cv2, ("imread", "imwrite", "imshow")))
        for name in names
    ]
    # The package writes its settings where it is told to; whatever the user has set for it elsewhere stays as it is.
    folder = tempfile.TemporaryDirectory(prefix="sd3-local-")
    atexit.register(folder.cleanup)
    os.environ.update(SETTINGS, YOLO_CONFIG_DIR=folder.name)
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        warnings.filters[:] = filters
        np.set_printoptions(**printing)
        torch.set_printoptions(**tensors)
        cv2.setNumThreads(threads)
        for owner, name, value in replaced:
            setattr(owner, name, value)
