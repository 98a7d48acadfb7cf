"""The models of optional features in ComfyUI's folders: face detectors and classifiers of unsafe pictures."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management as mm
import folder_paths
import torch

from ..pipelines.errors import RequestError, show
from ..pipelines.rules import code
from .folders import listed

NANO_FACE = "nano-face"
"""The detector that comes with the pack, for the faces that sd3-nano paints."""

_NANO_FACE_FILE = Path(__file__).resolve().parent.parent / "assets" / "nano" / "nano-face.pt"

# The folders that other packs with detectors use, and the beginning of a file's name for the user.
_DETECTOR_FOLDERS = {"ultralytics_bbox": "bbox/", "ultralytics_segm": "segm/", "ultralytics": ""}
_CLASSIFIER_FOLDERS = ("nsfw", "safety")


def detectors() -> list[str]:
    """What SD3LocalFaceFix offers: the .pt files of the folders `ultralytics/bbox`, `ultralytics/segm` and
    `ultralytics`, then the pack's own.
    """
    return list(_detector_paths())


def detector_path(name: object) -> Path:
    """The file of an offered name. Raises RequestError for any other name."""
    return _pick(name, _detector_paths(), "detector", "models/ultralytics/bbox")


def classifiers() -> list[str]:
    """The folders of image classifiers in `nsfw` and `safety`, by their names there."""
    return list(_classifier_paths())


def classifier_path(name: object) -> Path:
    """The folder of an offered name. Raises RequestError for any other name."""
    return _pick(name, _classifier_paths(), "classifier", "models/nsfw")


def device() -> torch.device:
    """Where ComfyUI wants models to work."""
    return mm.get_torch_device()


def _detector_paths() -> dict[str, Path]:
    models = Path(folder_paths.models_dir) / "ultralytics"
    for folder, beginning in _DETECTOR_FOLDERS.items():
        _register(folder, models / beginning.rstrip("/"), folder_paths.supported_pt_extensions)
    paths: dict[str, Path] = {}
    for folder, beginning in _DETECTOR_FOLDERS.items():
        for name, path in listed(folder).items():
            if name.lower().endswith(".pt"):
                # The folder `ultralytics` holds the others too, under these very names.
                paths.setdefault(beginning + Path(name).as_posix(), path)
    return {**paths, NANO_FACE: _NANO_FACE_FILE}


def _classifier_paths() -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for folder in _CLASSIFIER_FOLDERS:
        _register(folder, Path(folder_paths.models_dir) / folder, {".safetensors"})
        for root in folder_paths.get_folder_paths(folder):
            for place, _, names in os.walk(root, followlinks=True):
                if "config.json" in names:
                    name = f"{folder}/{Path(place).relative_to(root).as_posix()}".removesuffix("/.")
                    paths.setdefault(name, Path(place))
    return paths


def _register(folder: str, path: Path, extensions: set[str]) -> None:
    """Makes a folder known to ComfyUI, unless another pack or the user's own settings already did."""
    folder_paths.folder_names_and_paths.setdefault(folder, ([str(path)], set(extensions)))


def _pick(name: object, paths: dict[str, Path], parameter: str, folder: str) -> Path:
    # Only a listed name becomes a path, so nothing that a client sends can leave the folders.
    if isinstance(name, str) and name in paths:
        return paths[name]
    raise RequestError(
        code("invalid", parameter),
        f"{parameter}: ComfyUI's folder {folder} has no {show(name)}. Put it there and refresh the page, or pick "
        "another.",
        parameter,
    )
