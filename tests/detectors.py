"""Tiny random detectors of faces, made and saved by ultralytics itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sd3_local.pipelines.faces.library import load_library

KINDS = {"": "DetectionModel", "-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel"}
"""ultralytics' kinds of detectors by what the names of their files end in."""


def build_network(names: dict[int, str] | None = None, kind: str = "") -> Any:
    """A YOLOv8 of the published layout, a twentieth of the smallest one's size, that is more or less sure of what it
    finds."""
    names = names or {0: "face"}
    (tasks,) = load_library("ultralytics.nn.tasks")
    plan = tasks.yaml_model_load(f"yolov8{kind}.yaml")
    plan |= {"scales": {"p": (0.33, 0.125, 256)}, "scale": "p"}
    torch.manual_seed(7)
    network = getattr(tasks, KINDS[kind])(plan, nc=len(names), verbose=False)
    network.names = names
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        # Statistics of what it sees, without which a random network sees the same everywhere.
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        network.train()(torch.rand(8, 3, 96, 96))
        for branch in network.model[-1].cv3:
            branch[-1].weight.normal_(0, 0.7)
            branch[-1].bias.fill_(-2)
    return network.eval()


def save_detector(path: Path, names: dict[int, str] | None = None, side: int = 96, kind: str = "") -> Path:
    """Such a detector in a file, as `YOLO.save` leaves it."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT

    made = YOLO(f"yolov8n{kind}.yaml")
    made.model = build_network(names, kind)
    options = {**DEFAULT_CFG_DICT, "imgsz": side, "task": made.task}
    made.model.args, made.model.task = options, made.task
    made.ckpt = {"train_args": options, "epoch": -1}
    made.save(path)
    return path
