"""What stands against the ControlNets of a request, from headers and values alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Fault
from ..inputs import check_inputs, picture_faults, starts
from ..loading.transformer_keys import TransformerShape
from .file import ControlNetFile
from .keys import ControlNetShape

if TYPE_CHECKING:
    from ..materials import Materials
    from ..model import Model
    from ..request import ImageInference

_PIXELS_PER_PATCH = 16


def check_control_nets(request: ImageInference, model: Model, materials: Materials) -> list[Fault]:
    """All faults of all nets: files that do not go with the model or the picture's size, and guide images."""
    side = _longest_side(request, model, materials)
    faults: list[Fault] = []
    for number, entry in enumerate(request.control_net):
        file, path = materials.control_nets[entry.model], f"controlNet[{number}]"
        faults += _model_faults(file, model, side, f"{path}.model")
        faults += picture_faults(materials.pictures[entry.guide_image], request.number_results, f"{path}.guideImage")
    return faults


def suits(shape: ControlNetShape, model: Model) -> bool:
    """Whether a net was made for this model, as far as its blocks tell: they are copies of the model's first ones."""
    base: TransformerShape = model.plan.transformer.shape
    if shape.context_width is None:
        return True
    dual = tuple(block for block in base.dual if block < shape.layers)
    return (shape.rms_norm, shape.dual) == (base.rms_norm, dual)


def _model_faults(file: ControlNetFile, model: Model, side: int, parameter: str) -> Iterator[Fault]:
    shape, plan = file.shape, model.plan
    base: TransformerShape = plan.transformer.shape
    if shape.width != base.width:
        told = (
            f'"{file.name}" is a ControlNet for models of width {shape.width}{_example(shape.width)}, but {plan.name} '
            f"has a width of {base.width}: choose one that was made for it."
        )
        yield Fault("incompatibleModel", told, parameter)
        return
    for what, own, given in (
        ("tokens", shape.context_width, plan.context_width),
        ("a pooled vector", shape.pooled_width, plan.pooled_width),
    ):
        if own is not None and own != given:
            told = f'"{file.name}" takes {what} of {own} features, but {plan.name} has {given}: choose another one.'
            yield Fault("incompatibleModel", told, parameter)
    if shape.table is not None and side > shape.table * _PIXELS_PER_PATCH:
        limit = shape.table * _PIXELS_PER_PATCH
        told = (
            f'"{file.name}" knows places of at most {limit} pixels a side, but the picture is painted at {side}: '
            "choose a smaller width and height, or another ControlNet."
        )
        yield Fault("incompatibleModel", told, parameter, {"max": limit})


def _example(width: int) -> str:
    published = {1536: "SD3 Medium and SD3.5 Medium", 2432: "SD3.5 Large"}
    return f" ({published[width]})" if width in published else ""


def _longest_side(request: ImageInference, model: Model, materials: Materials) -> int:
    """The longest side in pixels that is painted: the picture's, or that of a part of it that is enlarged."""
    longest = max(request.width, request.height)
    if request.mask_margin is None or check_inputs(request, materials):
        return longest
    made = starts(request, materials, model.plan.native_side, model.plan.max_side)
    return max(longest, *(max(start.canvas.painted_width, start.canvas.painted_height) for start in made))
