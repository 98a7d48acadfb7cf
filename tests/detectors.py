"""Tiny random detectors of faces, made and saved by ultralytics itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sd3_local.pipelines.faces.library import load_library


def build_network(names: dict[int, str] | None = None) -> Any:
    """A YOLOv8 of the published layout, a twentieth of the smallest one's size, that is sure of what it finds."""
    names = names or {0: "face"}
    (tasks,) = load_library("ultralytics.nn.tasks")
    plan = tasks.yaml_model_load("yolov8.yaml")
    plan |= {"scales": {"p": (0.33, 0.125, 256)}, "scale": "p"}
    torch.manual_seed(7)
    network = tasks.DetectionModel(plan, nc=len(names), verbose=False)
    network.names = names
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.05)
        for branch in network.model[-1].cv3:
            branch[-1].weight.normal_(0, 1)
            branch[-1].bias.fill_(-2)
    return network.eval()


def save_detector(path: Path, names: dict[int, str] | None = None, side: int = 96) -> Path:
    """Such a detector in a file, as `YOLO.save` leaves it."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT

    made = YOLO("yolov8n.yaml")
    made.model = build_network(names)
    options = {**DEFAULT_CFG_DICT, "imgsz": side}
    made.model.args = options
    made.ckpt = {"train_args": options, "epoch": -1}
    made.save(path)
    return path
