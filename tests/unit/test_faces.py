"""Faces painted again: which pixels, at what size, mixed how, and what is told of it. No model is involved."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from sd3_local.pipelines.canvas import Box, Canvas
from sd3_local.pipelines.faces import FaceFix, Found, check_faces
from sd3_local.pipelines.faces.area import FaceArea, apart
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.request import Ultralytics

from tests.engines import request

WIDTH, HEIGHT = 128, 96


class FixedDetector:
    """Finds what it was told, and counts how often it was asked."""

    name = "fixed"

    def __init__(self, *found: Found):
        self.found = found
        self.asked = 0

    def find(self, picture: torch.Tensor) -> tuple[Found, ...]:
        self.asked += 1
        return self.found


def picture() -> torch.Tensor:
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))


def fix(*found: Found, native: int | None = None, **options) -> FaceFix:
    plan = SimpleNamespace(native_side=native, max_side=1024)
    return FaceFix(Ultralytics(**{"mask_padding": 0, "mask_blur": 0, **options}), FixedDetector(*found), plan)


def flat(colour: float):
    """A `paint` that makes everything one colour, and keeps what it was given."""
    calls = []

    def paint(canvas: Canvas, shown: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append((canvas, shown.clone(), mask.clone()))
        return torch.full((canvas.painted_height, canvas.painted_width, 3), colour)

    return paint, calls


def area(box: Box, **given) -> FaceArea:
    return FaceArea.of(box, WIDTH, HEIGHT, **{"padding": 0, "blur": 0, "area": 64 * 64, "max_side": 1024, **given})


def test_a_hard_mask_paints_the_box_and_nothing_else() -> None:
    before, (paint, calls) = picture(), flat(0.25)
    after = fix(Found(Box(40, 30, 72, 62), 0.95)).fix(before.clone(), 0, paint)
    expected = before.clone()
    expected[30:62, 40:72] = 0.25
    assert torch.allclose(after, expected, atol=1e-6)
    changed = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    changed[30:62, 40:72] = True
    assert torch.equal(after[~changed], before[~changed])
    canvas, shown, mask = calls[0]
    assert canvas.box == Box(24, 14, 88, 78)  # half of 32 px more on every side: the face is half of the crop
    assert torch.equal(shown, before)
    assert mask.sum() == 32 * 32
    # The picture's own number of pixels, where the model does not say what it was made for.
    assert (canvas.painted_width, canvas.painted_height) == (112, 112)


def test_a_soft_mask_is_the_integral_of_a_gaussian_and_ends_after_its_blur() -> None:
    box, blur = Box(40, 30, 80, 70), 12
    soft = area(box, blur=blur, padding=4).mask
    left, right, deviation = 36, 84, blur / 2
    across = [
        (math.erf((right - x - 0.5) / deviation / 2**0.5) - math.erf((left - x - 0.5) / deviation / 2**0.5)) / 2
        for x in range(WIDTH)
    ]
    # A sum over pixels in place of the integral, cut at two deviations.
    assert (soft[50] - torch.tensor(across)).abs().max() < 0.03
    assert soft[50, 60] > 1 - 1e-6
    assert (soft > 0).nonzero().amin(0).tolist() == [30 - 4 - blur, 40 - 4 - blur]
    assert (soft > 0).nonzero().amax(0).tolist() == [70 + 4 + blur - 1, 80 + 4 + blur - 1]


def test_what_is_painted_is_mixed_once_by_the_mask() -> None:
    before, (paint, calls) = picture(), flat(1.0)
    face = Found(Box(40, 30, 72, 62), 0.95)
    after = fix(face, mask_padding=3, mask_blur=9).fix(before, 0, paint)
    mask = area(face.box, padding=3, blur=9).mask[..., None]
    assert torch.allclose(after, before * (1 - mask) + mask, atol=1e-6)
    assert torch.equal(after[(mask == 0).expand_as(after)], before[(mask == 0).expand_as(before)])
    assert torch.allclose(after[(mask == 1).expand_as(after)], torch.tensor(1.0), atol=1e-6)
    assert torch.equal(calls[0][2], (mask[..., 0] > 0).float())


@pytest.mark.parametrize("box", [Box(0, 0, 20, 30), Box(108, 66, 128, 96), Box(0, 0, 128, 96), Box(0, 40, 3, 43)])
@pytest.mark.parametrize("blur", [0, 5, 100])
def test_faces_at_the_border_are_painted_up_to_it(box: Box, blur: int) -> None:
    before, (paint, calls) = picture(), flat(0.5)
    after = fix(Found(box, 1.0), mask_padding=20, mask_blur=blur).fix(before, 0, paint)
    canvas, _, mask = calls[0]
    around = canvas.box
    assert 0 <= around.left < around.right <= WIDTH
    assert 0 <= around.top < around.bottom <= HEIGHT
    assert canvas.painted_width % 16 == canvas.painted_height % 16 == 0
    # Nothing that shows lies outside what is painted, and at the picture's border nothing fades.
    outside = mask.clone()
    outside[around.top : around.bottom, around.left : around.right] = 0
    assert not outside.any()
    corner = after[0 if box.top == 0 else -1, 0 if box.left == 0 else -1]
    if blur < 10 and (box.top == 0 or box.bottom == HEIGHT):
        assert torch.allclose(corner, torch.full((3,), 0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("native", "side", "sizes"),
    [(64, 64, (64, 64)), (1024, 64, (1024, 1024)), (32, 64, (64, 64)), (None, 24, (112, 112))],
)
def test_a_face_is_painted_at_the_size_that_the_model_paints_best(native, side, sizes) -> None:
    paint, calls = flat(0.5)
    half = side // 4
    fix(Found(Box(64 - half, 48 - half, 64 + half, 48 + half), 1.0), native=native).fix(picture(), 0, paint)
    assert (calls[0][0].painted_width, calls[0][0].painted_height) == sizes


def test_faces_are_painted_the_surest_first_into_the_same_picture() -> None:
    before, (paint, calls) = picture(), flat(0.5)
    left, right = Found(Box(10, 20, 30, 40), 0.91), Found(Box(90, 50, 110, 70), 0.99)
    after = fix(left, right).fix(before, 0, paint)
    assert [int(mask.nonzero()[0, 1]) for _, _, mask in calls] == [90, 10]
    assert torch.allclose(calls[1][1][50:70, 90:110], torch.tensor(0.5), atol=1e-6)
    assert (after != before).any(-1).sum() == 2 * 20 * 20


def test_boxes_of_one_face_are_one_and_faces_side_by_side_are_two() -> None:
    face = Found(Box(10, 10, 50, 50), 0.9)
    inside, shifted = Found(Box(20, 20, 40, 40), 0.8), Found(Box(20, 10, 60, 50), 0.7)
    beside, empty = Found(Box(40, 10, 80, 50), 0.6), Found(Box(70, 70, 70, 90), 0.99)
    assert apart([beside, inside, shifted, face, empty]) == [face, beside]


def test_only_faces_that_are_sure_enough_count() -> None:
    before, (paint, calls) = picture(), flat(0.5)
    made = fix(Found(Box(10, 20, 30, 40), 0.89), Found(Box(60, 20, 80, 40), 0.2))
    assert made.fix(before, 0, paint) is before
    assert not calls
    account = made.accounts()[0]
    assert account.lines == (
        "faces of result 1: none found by fixed, the picture is unchanged; the surest has 0.89, asked for is 0.9",
    )
    assert torch.allclose(made.previews[0], before, atol=0.5 / 255 + 1e-6)
    # Exactly as sure as asked for is sure enough.
    exact = fix(Found(Box(10, 20, 30, 40), 0.5), confidence=0.5)
    assert not torch.equal(exact.fix(before, 0, paint), before)


def test_at_strength_0_no_face_is_looked_for() -> None:
    before, (paint, calls) = picture(), flat(0.5)
    made = fix(Found(Box(10, 20, 30, 40), 0.99), strength=0.0)
    assert made.fix(before, 0, paint) is before
    assert not calls
    assert made._detector.asked == 0
    assert made.accounts()[0].lines == ("faces of result 1: not looked for, strength is 0",)


def test_the_account_tells_each_result_and_the_previews_show_the_boxes() -> None:
    paint, _ = flat(0.5)
    made = fix(Found(Box(10, 20, 30, 45), 0.93), native=64)
    before = picture()
    for index in range(2):
        made.fix(before, index, paint)
    account = made.accounts()[0]
    assert account.feature == "ultralytics"
    assert account.lines[1] == ("faces of result 2: 20 x 25 px at (10, 20), confidence 0.93, painted at 64 x 80")
    data = json.loads(json.dumps(account.data))
    assert data["results"][1]["faces"][0]["box"] == {"left": 10, "top": 20, "right": 30, "bottom": 45}
    assert len(made.previews) == 2
    drawn = made.previews[0]
    magenta = torch.tensor([1.0, 0.0, 1.0])
    assert (drawn[20:45, 10] == magenta).all()
    assert (drawn[44, 10:30] == magenta).all()
    assert torch.allclose(drawn[60:], before[60:], atol=0.5 / 255 + 1e-6)


def test_a_request_without_a_detector_is_refused() -> None:
    asked = request(ultralytics={})
    (fault,) = check_faces(asked, Materials())
    assert (fault.code, fault.parameter) == ("missingDetector", "ultralytics")
    assert not check_faces(asked, Materials(detector=FixedDetector()))
