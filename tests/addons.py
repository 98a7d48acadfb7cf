"""The embedded model's add-ons, opened for requests that call them by their names."""

from __future__ import annotations

from functools import cache

from sd3_local.pipelines.controlnet import ControlNetFile
from sd3_local.pipelines.faces import open_detector
from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
from sd3_local.pipelines.lora import LoraFile
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model

from tests.nano import asset


@cache
def add_ons(model: Model) -> Materials:
    """All of them, each opened once for `model`. ComfyUI's modules must be importable."""
    from sd3_local.host.lora import parse_adapters

    encoder = VisionFile(asset("nano-vision"), model.placement)
    return Materials(
        loras={"nano-stripes": LoraFile(asset("nano-stripes"), parse_adapters)},
        control_nets={"nano-edges": ControlNetFile(asset("nano-edges"), model.placement)},
        ip_adapters={"nano-reference": IPAdapterFile(asset("nano-reference"), encoder, model.placement)},
        detector=open_detector(asset("nano-face")),
    )
