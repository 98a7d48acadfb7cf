"""Diffusers folders: which weight files they name, read as one table for each component."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import faults
from .checkpoint import Entry, read_table

# Component folder -> kind of module, as Stable Diffusion 3 pipelines name them.
FOLDERS = {
    "transformer": "transformer",
    "vae": "vae",
    "text_encoder": "clip_l",
    "text_encoder_2": "clip_g",
    "text_encoder_3": "t5",
}
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


def read_folder(path: Path, parameter: str) -> dict[str, tuple[Path, dict[str, Entry]]]:
    """Kind -> (component folder, table) for every component that the diffusers folder `path` has.

    A component that `model_index.json` leaves out, sets to null, or whose folder is not there is left out.
    Raises RequestError where the folder is no Stable Diffusion 3 pipeline or a component's files are damaged.
    """
    index_file = path / "model_index.json"
    if not index_file.is_file():
        raise faults.invalid(
            path,
            "is a folder without model_index.json, so not a diffusers model; choose a .safetensors file "
            "or a diffusers folder.",
            parameter,
        )
    index = _read_json(index_file, parameter)
    name = str(index.get("_class_name", "")).removeprefix("Modular")
    if not name.startswith("StableDiffusion3"):
        raise faults.unsupported(
            path,
            f'is a diffusers folder of another architecture ("{name[:60]}"); this pack runs '
            "Stable Diffusion 3 and 3.5.",
            parameter,
        )
    found = {}
    for folder, kind in FOLDERS.items():
        listed = index.get(folder)
        if isinstance(listed, list) and listed[:1] != [None] and (path / folder).is_dir():
            found[kind] = (path / folder, read_component(path / folder, parameter))
    return found


def read_component(path: Path, parameter: str) -> dict[str, Entry]:
    """The table of one component folder: from its index of shards where it has one, else from its single weight file.

    A folder with several variants (such as `.fp16`) gives the one without a suffix first, as diffusers does.
    """
    for stem in _STEMS:
        indexes = sorted(path.glob(f"{stem}*.index*.json"), key=lambda file: len(file.name))
        indexes.sort(key=lambda file: ".bin." in file.name)
        if indexes:
            return _read_shards(indexes[0], parameter)
        for suffix in (".safetensors", ".bin"):
            files = sorted(path.glob(f"{stem}*{suffix}"), key=lambda file: len(file.name))
            if files:
                return read_table(files[0], parameter)
    raise faults.invalid(path, "has no weights (no .safetensors file in the folder); download it again.", parameter)


def _read_shards(index: Path, parameter: str) -> dict[str, Entry]:
    weight_map = _read_json(index, parameter).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise faults.invalid(index, "has no weight_map; download it again.", parameter)
    shards: dict[str, dict[str, Entry]] = {}
    for file in sorted(set(weight_map.values())):
        # An index comes from the network: it may name files of its own folder only.
        if Path(file).name != file:
            raise faults.invalid(index, f'names a file outside its folder ("{file[:60]}").', parameter)
        shards[file] = read_table(index.parent / file, parameter)
    lacking = [name for name, file in weight_map.items() if name not in shards[file]]
    if lacking:
        raise faults.invalid(
            index,
            f'names {len(lacking)} tensors that its files do not have, the first is "{lacking[0][:100]}"; '
            "download the folder again.",
            parameter,
        )
    return {name: shards[file][name] for name, file in weight_map.items()}


def _read_json(path: Path, parameter: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise faults.invalid(path, "is not a JSON object; download it again.", parameter)
    return content
