"""What stands against the IP-Adapters of a request, from headers and values alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Fault
from ..inputs import picture_faults
from ..loading.transformer_keys import TransformerShape
from .file import IPAdapterFile

if TYPE_CHECKING:
    from ..materials import Materials
    from ..model import Model
    from ..request import ImageInference


def check_ip_adapters(request: ImageInference, model: Model, materials: Materials) -> list[Fault]:
    """All faults of all adapters: those made for another model, and guide images that are no pictures."""
    faults: list[Fault] = []
    for number, entry in enumerate(request.ip_adapters):
        path = f"ipAdapters[{number}]"
        faults += _model_faults(materials.ip_adapters[entry.model], model, f"{path}.model")
        for index, name in enumerate(entry.guide_images):
            picture = materials.pictures[name]
            # Every picture of a batch is a guide image, so a batch of any size is right.
            faults += picture_faults(picture, len(picture), f"{path}.guideImages[{index}]")
    return faults


def _model_faults(file: IPAdapterFile, model: Model, parameter: str) -> Iterator[Fault]:
    shape, plan = file.shape, model.plan
    base: TransformerShape = plan.transformer.shape
    if (shape.width, shape.blocks) != (base.width, base.blocks):
        example = " (SD3.5 Large)" if (shape.width, shape.blocks) == (2432, 38) else ""
        told = (
            f'"{file.name}" is an IP-Adapter for models of width {shape.width} with {shape.blocks} blocks{example}, '
            f"but {plan.name} has a width of {base.width} and {base.blocks} blocks: choose one that was made for it."
        )
        yield Fault("incompatibleModel", told, parameter)
