"""ComfyUI's model folders: which files a user can pick, and which file a picked name is."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..pipelines.errors import RequestError, show
from ..pipelines.rules import code
from ..pipelines.text import TokenizerFiles
from .server import data_folder

NANO = "sd3-nano"
"""The model that comes with the pack."""

NANO_EDGES = "nano-edges"
"""The ControlNet that comes with the pack, for sd3-nano."""

NANO_STRIPES = "nano-stripes"
"""The LoRA that comes with the pack, for sd3-nano."""

NANO_REFERENCE, NANO_VISION = "nano-reference", "nano-vision"
"""The IP-Adapter that comes with the pack, for sd3-nano, and the image encoder that it was trained with."""

FROM_MODEL = "from model"
"""The choice that leaves a VAE or a text encoder to the model's own file."""

_PACK = Path(__file__).resolve().parent.parent
_NANO = _PACK / "assets" / "nano"
_MODEL_FOLDERS = ("checkpoints", "diffusion_models", "diffusers")
# The pack's own files, by the folder of ComfyUI that they are offered with.
_ADD_ONS = {
    "loras": {NANO_STRIPES: _NANO / "nano-stripes.safetensors"},
    "controlnet": {NANO_EDGES: _NANO / "nano-edges.safetensors"},
    "ipadapter": {NANO_REFERENCE: _NANO / "nano-reference.safetensors"},
    "clip_vision": {NANO_VISION: _NANO / "nano-vision.safetensors"},
}


def models() -> list[str]:
    """What SD3LocalModel offers: the pack's own model, then single files and diffusers folders by their names in
    ComfyUI.
    """
    return list(_model_paths())


def model_path(name: str) -> Path:
    """The file or diffusers folder of an offered name. Raises RequestError for any other name."""
    return _pick(name, _model_paths(), "model", "checkpoints, diffusion_models or diffusers")


def files(folder: str) -> list[str]:
    """`FROM_MODEL`, then the files of one of ComfyUI's model folders."""
    return [FROM_MODEL, *_names(folder)]


def file_path(name: str, folder: str, parameter: str) -> Path | None:
    """The file of an offered name, None for `FROM_MODEL`. Raises RequestError for any other name."""
    if name == FROM_MODEL:
        return None
    return _pick(name, _paths(folder), parameter, folder)


def listed(folder: str) -> dict[str, Path]:
    """The files of one of ComfyUI's model folders by the names that it lists them with."""
    paths = ((name, folder_paths.get_full_path(folder, name)) for name in _names(folder))
    return {name: Path(path) for name, path in paths if path is not None}


def stamp(path: Path) -> tuple[int, int]:
    """(date in nanoseconds, size in bytes): another one after the file was replaced or written to."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def add_ons(folder: str) -> list[str]:
    """The files of one of ComfyUI's model folders, then the pack's own that go with them."""
    return list(_add_on_paths(folder))


def add_on_path(name: object, folder: str, parameter: str) -> Path:
    """The file of an offered add-on. Raises RequestError for any other name."""
    return _pick(name, _add_on_paths(folder), parameter, folder)


def calibrations() -> Path:
    """Where SD3 Calibrate keeps its results: in ComfyUI's user folder, where no client reads or writes."""
    return data_folder() / "calibrations"


def tokenizers() -> TokenizerFiles:
    """The tokenizers that ComfyUI ships: folders with vocabularies, and no weights."""
    import comfy.sd1_clip
    import comfy.text_encoders.sd3_clip

    return TokenizerFiles(
        clip=Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer",
        t5=Path(comfy.text_encoders.sd3_clip.__file__).parent / "t5_tokenizer",
    )


def loadable_picture(name: str) -> Path | None:
    """The file that ComfyUI's own nodes load under a name such as "a.png", "b/a.png" or "a.png [output]"; None where it
    is none, or lies outside of the folders of pictures.
    """
    plain, folder = folder_paths.annotated_filepath(name)
    root = Path(folder or folder_paths.get_input_directory()).resolve()
    try:
        path = (root / plain).resolve()
    except (OSError, ValueError):
        return None
    return path if path.is_relative_to(root) and path.is_file() else None


def _model_paths() -> dict[str, Path]:
    paths = {NANO: _NANO / "sd3-nano.safetensors"}
    for folder in _MODEL_FOLDERS:
        for name, path in _paths(folder).items():
            # Two folders may hold the same name; the second is told apart the way ComfyUI annotates images.
            paths[name if name not in paths else f"{name} [{folder}]"] = path
    return paths


def _add_on_paths(folder: str) -> dict[str, Path]:
    # ComfyUI itself has no folder for IP-Adapters; this is the one that other packs use.
    own = ([str(Path(folder_paths.models_dir) / folder)], folder_paths.supported_pt_extensions)
    folder_paths.folder_names_and_paths.setdefault(folder, own)
    return {**_paths(folder), **_ADD_ONS[folder]}


def _names(folder: str) -> list[str]:
    try:
        return folder_paths.get_filename_list(folder)
    except FileNotFoundError:
        # ComfyUI asks for the date of every folder that it listed before, and fails from then on where one of them was
        # removed: https://github.com/Comfy-Org/ComfyUI/pull/14497
        folder_paths.filename_list_cache.pop(folder, None)
        return folder_paths.get_filename_list(folder)


def _paths(folder: str) -> dict[str, Path]:
    if folder == "diffusers":
        return {
            Path(place).relative_to(root).as_posix(): Path(place)
            for root in folder_paths.get_folder_paths(folder)
            for place, _, names in os.walk(root, followlinks=True)
            if "model_index.json" in names
        }
    return listed(folder)


def _pick(name: object, paths: dict[str, Path], parameter: str, folders: str) -> Path:
    # ComfyUI does not check a choice against its list before 0.8. Only a listed name becomes a path, so nothing that a
    # client sends can leave the folders.
    if isinstance(name, str) and name in paths:
        return paths[name]
    raise RequestError(
        code("invalid", parameter),
        f"{parameter}: ComfyUI's folder {folders} has no {show(name)}. Put the file there and refresh the page, or "
        "pick another.",
        parameter,
    )
