"""Where the endpoint's things lie in ComfyUI's folders, and the one of each that this process has."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..host import folders, server
from .keys import KeyFile
from .models import Kind, ModelTable
from .settings import SettingsFile
from .store import Store

RESULTS = "sd3-local"
"""The folder of results in ComfyUI's output folder."""


@cache
def store() -> Store:
    pictures = server.data_folder() / "pictures"
    return Store(
        server.data_folder() / "endpoint.sqlite",
        {"result": server.output_folder() / RESULTS, "upload": pictures, "input": pictures},
    )


@cache
def settings() -> SettingsFile:
    return SettingsFile(server.data_folder() / "endpoint.json")


@cache
def keys() -> KeyFile:
    return KeyFile(server.data_folder() / "keys.json")


@cache
def models() -> ModelTable:
    return ModelTable(server.data_folder() / "models.json", _files, _path)


_FOLDERS: dict[Kind, str] = {"lora": "loras", "controlNet": "controlnet", "ipAdapters": "ipadapter"}


def _files(kind: Kind) -> list[str]:
    return folders.models() if kind == "model" else folders.add_ons(_FOLDERS[kind])


def _path(kind: Kind, name: str) -> Path:
    return folders.model_path(name) if kind == "model" else folders.add_on_path(name, _FOLDERS[kind], kind)
