"""Cutting out, fitting and putting back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.canvas import Box, Canvas, blurred, box_of, faded, fitted, latent_mask, resized
from sd3_local.pipelines.windows import window


def ramp(height: int, width: int) -> torch.Tensor:
    """Red grows to the right, green downwards."""
    red = torch.linspace(0, 1, width).expand(height, width)
    green = torch.linspace(0, 1, height)[:, None].expand(height, width)
    return torch.stack([red, green, torch.zeros(height, width)], dim=-1)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_part_lies_in_the_picture_and_is_painted_in_whole_patches(data) -> None:
    width, height = (data.draw(st.integers(4, 40)) * 16 for _ in range(2))
    left = data.draw(st.integers(0, width - 1))
    top = data.draw(st.integers(0, height - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    area = data.draw(st.integers(64, 1024)) ** 2
    canvas = Canvas.part(width, height, box, area, 1024)
    assert canvas.painted_width % 16 == canvas.painted_height % 16 == 0
    assert min(canvas.painted_width, canvas.painted_height) >= 64
    assert 0 <= canvas.box.left <= box.left < box.right <= canvas.box.right <= width
    assert 0 <= canvas.box.top <= box.top < box.bottom <= canvas.box.bottom <= height
    picture = torch.rand(height, width, 3)
    taken = canvas.take(picture)
    assert taken.shape == (canvas.painted_height, canvas.painted_width, 3)
    mask = torch.zeros(height, width)
    mask[box.top : box.bottom, box.left : box.right] = 1
    back = canvas.put(picture, torch.zeros_like(taken), mask)
    assert torch.equal(back[mask == 0], picture[mask == 0])


def test_a_part_is_enlarged_to_the_area_asked_for() -> None:
    canvas = Canvas.part(512, 512, Box(100, 100, 164, 132), 256 * 256, 1024)
    assert (canvas.painted_width, canvas.painted_height) == (368, 176)
    assert canvas.box == Box(100, 100, 164, 132)


def test_a_part_that_is_large_already_keeps_its_scale() -> None:
    canvas = Canvas.part(512, 512, Box(3, 5, 400, 300), 128 * 128, 1024)
    assert (canvas.painted_width, canvas.painted_height) == (canvas.box.width, canvas.box.height) == (400, 304)
    picture = torch.rand(512, 512, 3)
    assert torch.equal(canvas.put(picture, canvas.take(picture), torch.ones(512, 512)), picture)


def test_a_part_that_comes_back_from_another_scale_fades_in_inside_its_mask() -> None:
    canvas = Canvas.part(256, 256, Box(64, 64, 192, 192), 256 * 256, 1024)
    mask = torch.zeros(256, 256)
    mask[96:160, 96:160] = 1
    back = canvas.put(torch.zeros(256, 256, 3), torch.ones(canvas.painted_height, canvas.painted_width, 3), mask)
    assert back[mask == 0].max() == 0
    row = back[128, 96:128, 0]
    assert row[0] < 0.2 and row[-1] == pytest.approx(1)
    assert (row.diff() >= -1e-6).all()


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 32), (32, 96), (48, 64)])
def test_fitting_covers_and_cuts_both_sides_alike(width: int, height: int) -> None:
    shown = fitted(ramp(128, 192), width, height)
    assert shown.shape == (height, width, 3)
    # What is left is the middle: the ramps are symmetric about it.
    assert shown[..., 0].mean() == pytest.approx(0.5, abs=0.02)
    assert shown[..., 1].mean() == pytest.approx(0.5, abs=0.02)


def test_what_fits_is_not_resampled() -> None:
    picture = torch.rand(64, 96, 3)
    assert fitted(picture, 96, 64) is picture
    assert resized(picture, 96, 64) is picture


def test_a_blur_keeps_what_is_even_and_spreads_an_edge() -> None:
    assert torch.allclose(blurred(torch.full((40, 40), 0.7), 6), torch.full((40, 40), 0.7))
    edge = torch.zeros(40, 40)
    edge[:, 20:] = 1
    soft = blurred(edge, 6)
    assert soft[20, 19] == pytest.approx(1 - float(soft[20, 20]), abs=1e-5)
    assert (soft[:, 12:28].diff(dim=1) >= 0).all() and soft[20, 10] == 0
    assert blurred(edge, 0) is edge


def test_thin_masks_still_change_their_middle() -> None:
    mask = torch.zeros(64, 64)
    mask[30:34, 8:56] = 1
    assert faded(mask).max() > 0.5
    assert faded(mask)[mask == 0].max() == 0


def test_the_box_of_a_mask() -> None:
    mask = torch.zeros(20, 30)
    assert box_of(mask) is None
    mask[3, 4] = mask[10, 25] = 0.01
    assert box_of(mask) == Box(4, 3, 26, 11)


def test_a_latent_is_free_where_one_of_its_pixels_is() -> None:
    mask = torch.zeros(16, 24)
    mask[7, 8] = 0.5
    assert latent_mask(mask)[0, 0].tolist() == [[0, 0.5, 0], [0, 0, 0]]


def test_windows_that_meet_share_no_step_and_leave_none_out() -> None:
    for steps in range(1, 40):
        for cut in range(1, 100):
            first, last = window(steps, None, None, None, cut), window(steps, None, None, cut, None)
            assert [*first, *last] == list(range(steps))
    assert window(28, None, None, None, None) == range(28)
    assert window(28, 4, 20, None, None) == range(4, 20)
    # An image to image run may execute fewer steps than the window names.
    assert window(14, 4, 20, None, None) == range(4, 14)
    assert len(window(10, 14, 20, None, None)) == 0
    assert window(28, None, None, 0, 50) == range(14)
