"""The engine on the CPU, without a host: for tests that compare its numbers."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import torch
from sd3_local.pipelines.loading import ModelFiles
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.parse import parse
from sd3_local.pipelines.placement import LocalPlacement, Placement
from sd3_local.pipelines.request import ImageInference
from sd3_local.pipelines.text import TokenizerFiles

from tests.comfy_host import comfyui_folder


def open_model(model: Path, placement: Placement | None = None, **files: Any) -> Model:
    """The model of these files, computing in float32 on the CPU where `placement` says nothing else."""
    comfy = comfyui_folder() / "comfy"
    tokenizers = TokenizerFiles(comfy / "sd1_tokenizer", comfy / "text_encoders" / "t5_tokenizer")
    placement = placement or LocalPlacement(torch.device("cpu"), torch.float32)
    return Model(ModelFiles(model, **files), tokenizers, placement)


def request(**fields: Any) -> ImageInference:
    """A small, quick request; `fields` by the API's names."""
    data = {
        "taskType": "imageInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "test",
        "positivePrompt": "a red circle on the left, blue background",
        "width": 96,
        "height": 64,
        "steps": 12,
        "seed": 5,
        **fields,
    }
    return parse({name: value for name, value in data.items() if value is not None})
