"""The seed image, its mask and its extensions: what a result starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .canvas import Box, Canvas, box_of, fitted, resized
from .errors import Fault
from .features import Account
from .rules import code, field_of

if TYPE_CHECKING:
    import torch

    from .materials import Materials
    from .request import ImageInference, Outpaint

SMALLEST_PICTURE = 16
"""Pixels a side below which a picture says nothing to the model: it is two latents wide."""

CHANNELS = {1: "grey", 3: "RGB", 4: "RGB with alpha"}
SEED_IMAGE, MASK_IMAGE = "inputs.seedImage", "inputs.maskImage"


@dataclass(frozen=True)
class Start:
    """What one result starts from.

    `picture` [height, width, 3] is the seed image on the finished picture's canvas, None in text to image. `mask`
    [height, width] is where it may change, from 0 to 1; None where all of it may. `strength` is how much it may.
    """

    canvas: Canvas
    picture: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    strength: float = 1.0

    @property
    def is_kept(self) -> bool:
        """Whether nothing of the seed image may change, so that there is nothing to sample."""
        return self.picture is not None and (
            self.strength == 0 or (self.mask is not None and box_of(self.mask) is None)
        )


def picture_faults(picture: torch.Tensor, results: int, parameter: str) -> Iterator[Fault]:
    """What is wrong with a picture [B, H, W, C] of a request, be it seed, mask or guide."""
    name = field_of(parameter)
    invalid = code("invalid", name)
    if picture.ndim != 4 or 0 in picture.shape or picture.shape[-1] not in CHANNELS:
        told = f"{parameter} has the shape {list(picture.shape)}; a picture is [batch, height, width, channels]"
        yield Fault(invalid, f"{told} with 1, 3 or 4 channels.", parameter)
        return
    batch, height, width = picture.shape[:3]
    if min(height, width) < SMALLEST_PICTURE:
        told = f"{parameter} is {width} x {height} pixels; it must have at least {SMALLEST_PICTURE} on each side."
        yield Fault(invalid, told, parameter, {"min": SMALLEST_PICTURE})
    if batch not in (1, results):
        told = f"{parameter} is a batch of {batch} pictures; give one for all results, or one for each of {results}"
        yield Fault(invalid, f"{told} (numberResults).", parameter, {"allowedValues": sorted({1, results})})
    if not picture.isfinite().all():
        yield Fault(invalid, f"{parameter} has values that are not numbers.", parameter)


def opaque(picture: torch.Tensor) -> torch.Tensor:
    """A picture [..., 1, 3 or 4] as RGB [..., 3]: grey in all three, transparency over white."""
    picture = picture.float().clamp(0, 1)
    if picture.shape[-1] == 1:
        return picture.expand(*picture.shape[:-1], 3)
    if picture.shape[-1] == 4:
        colour, alpha = picture[..., :3], picture[..., 3:]
        return colour * alpha + (1 - alpha)
    return picture


def brightness(picture: torch.Tensor) -> torch.Tensor:
    """A mask's picture [..., C] as how white it is [...]: Rec. 601 luma, as Pillow's "L"."""
    picture = picture.float().clamp(0, 1)
    if picture.shape[-1] == 1:
        return picture[..., 0]
    red, green, blue = opaque(picture).unbind(-1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).clamp(0, 1)


def check_inputs(request: ImageInference, materials: Materials) -> list[Fault]:
    """What is wrong with the pictures that the request starts from, and how they fit together."""
    inputs = request.inputs
    if inputs is None or inputs.seed_image is None:
        return []
    seed = materials.pictures[inputs.seed_image]
    faults = list(picture_faults(seed, request.number_results, SEED_IMAGE))
    mask = None
    if inputs.mask_image is not None:
        mask = materials.pictures[inputs.mask_image]
        faults += picture_faults(mask, request.number_results, MASK_IMAGE)
    if faults:
        return faults
    rows, columns = seed.shape[1:3]
    if mask is not None:
        faults += _mask_size_faults(mask, columns, rows, request)
    if request.outpaint is not None:
        faults += _outpaint_faults(request, columns, rows)
    return faults


def _mask_size_faults(mask: torch.Tensor, width: int, height: int, request: ImageInference) -> Iterator[Fault]:
    rows, columns = mask.shape[1:3]
    # Within one pixel of the same proportions, a mask is the seed image's at another scale.
    if abs(columns * height - width * rows) <= max(width, height, columns, rows):
        return
    if request.outpaint is not None and (columns, rows) == (request.width, request.height):
        return
    told = (
        f"{MASK_IMAGE} is {columns} x {rows} pixels, but {SEED_IMAGE} is {width} x {height}: they must have the same "
        "proportions."
    )
    if (columns, rows) == (64, 64) and not mask.any():
        told += " An empty mask of 64 x 64 is what Load Image gives for a picture without transparency: paint a mask."
    yield Fault("invalidMaskImage", told, MASK_IMAGE)


def _sides(outpaint: Outpaint) -> tuple[int, int, int, int]:
    return outpaint.left or 0, outpaint.top or 0, outpaint.right or 0, outpaint.bottom or 0


def _outpaint_faults(request: ImageInference, width: int, height: int) -> Iterator[Fault]:
    left, top, right, bottom = _sides(request.outpaint)
    if not any((left, top, right, bottom)):
        told = "outpaint extends no side: set at least one of top, right, bottom and left above 0, or leave it out."
        yield Fault("invalidOutpaint", told, "outpaint")
        return
    for name, asked, own, sides, first, second in (
        ("width", request.width, width, ("left", "right"), left, right),
        ("height", request.height, height, ("top", "bottom"), top, bottom),
    ):
        needed = own + first + second
        if asked != needed:
            told = (
                f"{name} is {asked}, but the seed image's {name} of {own} with {first} on the {sides[0]} and {second} "
                f"on the {sides[1]} makes {needed}: set {name} to {needed}"
            )
            if needed % 16:
                rest = 16 - needed % 16
                told = f"{told.rpartition(': ')[0]}, which is no multiple of 16: add {rest} on one of the two sides and"
                told += f" set {name} to {needed + rest}"
            yield Fault(code("invalid", name), f"{told}.", name, {"allowedValues": [needed + -needed % 16]})


def starts(request: ImageInference, materials: Materials, native_side: int | None, max_side: int) -> list[Start]:
    """What each result starts from: one for all of them, or one each where seed image or mask is a batch."""
    whole = Canvas.whole(request.width, request.height)
    inputs = request.inputs
    if inputs is None or inputs.seed_image is None:
        return [Start(whole)]
    seeds = opaque(materials.pictures[inputs.seed_image]).cpu()
    masks = None if inputs.mask_image is None else brightness(materials.pictures[inputs.mask_image]).cpu()
    count = max(len(seeds), 0 if masks is None else len(masks))
    made = []
    for index in range(count):
        seed = seeds[index % len(seeds)]
        mask = None if masks is None else masks[index % len(masks)]
        picture, mask = _placed(request, seed, mask)
        canvas = whole
        if mask is not None and request.mask_margin is not None and (box := box_of(mask)) is not None:
            box = box.grown(request.mask_margin, request.width, request.height)
            canvas = Canvas.part(request.width, request.height, box, native_area(request, native_side), max_side)
        made.append(Start(canvas, picture, mask, request.strength))
    return made


def native_area(request: ImageInference, native_side: int | None) -> int:
    """Pixels at which a part of the picture is best painted: the model's own where they are known, else the picture's,
    which is then all that tells what suits the model.
    """
    return native_side**2 if native_side is not None else request.width * request.height


def _placed(
    request: ImageInference, seed: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The seed image and the mask on the finished picture's canvas."""
    import torch

    width, height = request.width, request.height
    if request.outpaint is None:
        if mask is not None:
            # First on the seed image's own grid, so that both are cut alike.
            mask = fitted(resized(mask[..., None], seed.shape[1], seed.shape[0]), width, height)[..., 0]
        return fitted(seed, width, height), mask
    left, top, right, bottom = _sides(request.outpaint)
    placed = Box(left, top, width - right, height - bottom)
    # The canvas is the rim's colours drawn outwards.
    padded = torch.nn.functional.pad(seed.movedim(-1, 0)[None], (left, right, top, bottom), mode="replicate")
    outside = torch.ones(height, width)
    outside[placed.top : placed.bottom, placed.left : placed.right] = 0
    if mask is not None:
        if mask.shape == outside.shape:
            outside = torch.maximum(outside, mask)
        else:
            mask = resized(mask[..., None], placed.width, placed.height)[..., 0]
            outside[placed.top : placed.bottom, placed.left : placed.right] = mask
    return padded[0].movedim(0, -1), outside


def account(request: ImageInference, made: Sequence[Start], steps: int) -> Account | None:
    """What became of the seed image, for the report."""
    start = made[0]
    if start.picture is None:
        return None
    lines, notes = [f"seed image: strength {start.strength:g}, {steps} of {request.steps} steps"], ()
    data: dict[str, object] = {"strength": start.strength, "steps": steps}
    if start.is_kept:
        lines = ["seed image: kept as it is, " + ("strength is 0" if start.strength == 0 else "the mask is black")]
    if start.mask is not None:
        share = float((start.mask > 0).float().mean())
        lines.append(f"mask: {share:.0%} of the picture may change")
        data["maskShare"] = share
        if not start.canvas.is_whole:
            box, canvas = start.canvas.box, start.canvas
            lines.append(
                f"crop: {box.width} x {box.height} px at ({box.left}, {box.top}), painted at "
                f"{canvas.painted_width} x {canvas.painted_height}"
            )
            data["crop"] = {**box._asdict(), "width": canvas.painted_width, "height": canvas.painted_height}
    elif request.mask_margin is not None:
        notes = ("maskMargin has no effect without a mask",)
    return Account("inputs", (*lines, *notes), data, notes)
