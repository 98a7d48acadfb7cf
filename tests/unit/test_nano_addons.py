"""sd3-nano's add-ons: their files say all about their shapes, and what they learnt from is drawn right."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tools.nano.crowd import crowd, draw_crowd, face_boxes
from tools.nano.drawings import OUTLINE, STRIPE_PERIOD, draw_edges, draw_striped
from tools.nano.measure_addons import STRIPED, stripe_strength, subject_mask
from tools.nano.world import SUBJECTS, Scene, draw_mask, draw_scene

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "nano"
WIDTH, BLOCKS, HEAD = 128, 8, 64


def shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    """Shapes by key of an add-on, every tensor of which is in half precision."""
    with safe_open(ASSETS / f"nano-{name}.safetensors", "pt") as file:
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        assert {part.get_dtype() for part in parts.values()} == {"F16"}
        return {key: tuple(part.get_shape()) for key, part in parts.items()}


def scene(subject: str, colour: str = "red", background: str = "blue", radius: float = 0.4) -> Scene:
    return Scene(subject, colour, background, "in the center", x=0.05, y=-0.1, radius=radius)


def test_everything_fits_into_40_mib():
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= 40 * 2**20


def test_stripes_are_pairs_of_low_rank_matrices_in_every_block():
    found = shapes("stripes")
    ranks = {shape[0] for key, shape in found.items() if key.endswith(".lora_A.weight")}
    assert len(ranks) == 1
    layers = {key.removesuffix(".lora_A.weight") for key in found if key.endswith(".lora_A.weight")}
    assert {f"{layer}.lora_{part}.weight" for layer in layers for part in "AB"} == set(found)
    assert {layer.split(".")[2] for layer in layers} == {str(number) for number in range(BLOCKS)}
    for layer in layers:
        assert layer.startswith("transformer.transformer_blocks.")
        assert found[f"{layer}.lora_B.weight"][1] in ranks


def test_edges_is_a_control_net_of_the_transformers_shape():
    found = shapes("edges")
    depth = sum(key.startswith("controlnet_blocks.") and key.endswith(".weight") for key in found)
    assert {key.split(".")[1] for key in found if key.startswith("transformer_blocks.")} == set(map(str, range(depth)))
    assert found["pos_embed_input.proj.weight"] == (WIDTH, 16, 2, 2)
    assert found["pos_embed.pos_embed"] == (1, 96 * 96, WIDTH)
    assert found["context_embedder.weight"] == (WIDTH, 128)
    assert found["transformer_blocks.0.attn.norm_q.weight"] == (HEAD,)


def test_reference_says_the_sizes_that_loaders_derive():
    found = shapes("reference")
    projection = {
        key.removeprefix("image_proj."): shape for key, shape in found.items() if key.startswith("image_proj.")
    }
    hidden, seen = projection["proj_in.weight"]
    assert seen == shapes("vision")["vision_model.embeddings.patch_embedding.weight"][0]
    assert projection["proj_out.weight"] == (WIDTH, hidden)
    assert projection["layers.0.attn.to_q.weight"][0] % HEAD == 0
    # The depth that diffusers assumes.
    assert {key.split(".")[1] for key in projection if key.startswith("layers.")} == {"0", "1", "2", "3"}
    assert {key.split(".")[1] for key in found if key.startswith("ip_adapter.")} == set(map(str, range(BLOCKS)))
    assert found["ip_adapter.0.norm_ip.linear.weight"] == (2 * WIDTH, hidden)


def test_vision_is_a_siglip_with_heads_of_72():
    found = shapes("vision")
    width, channels, patch, _ = found["vision_model.embeddings.patch_embedding.weight"]
    tokens, _ = found["vision_model.embeddings.position_embedding.weight"]
    assert (width, channels) == (144, 3)
    assert patch * int(tokens**0.5) == 64
    assert len({key.split(".")[3] for key in found if key.startswith("vision_model.encoder.layers.")}) == 3
    assert "vision_model.head.probe" in found


def test_the_detector_is_small_and_names_no_file_of_the_machine_that_made_it():
    path = ASSETS / "nano-face.pt"
    assert path.stat().st_size < 2 * 2**20
    with zipfile.ZipFile(path) as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"DetectionModel" in pickled
    for told in (b"/root", b"/home", b"/work", b"/tmp"):
        assert told not in pickled


@pytest.mark.parametrize("subject", SUBJECTS)
def test_stripes_lie_on_the_subject_only_and_halve_its_brightness(subject: str):
    asked = scene(subject)
    plain, striped = draw_scene(asked), draw_striped(asked)
    outside = draw_mask(asked) == 0
    assert torch.equal(plain[:, outside], striped[:, outside])
    ratio = striped[0] / plain[0]
    assert ratio.min() == pytest.approx(0.5)
    assert stripe_strength(plain, subject) < STRIPED < stripe_strength(striped, subject)


def test_stripes_have_their_period():
    side, asked = 512, scene("square")
    centre = round((asked.x + 1) * side / 2)
    column = draw_striped(asked, side, side)[0, :, centre] < 0.6 * 217 / 255
    starts = (column[1:] & ~column[:-1]).nonzero()[:, 0]
    assert np.diff(starts[1:-1].numpy()) == pytest.approx(STRIPE_PERIOD * asked.radius * side / 2, abs=1.5)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_edges_follow_the_outline_two_pixels_wide(subject: str):
    asked = scene(subject)
    edges, mask = draw_edges(asked, 128, 160), draw_mask(asked, 128, 160)
    assert edges.shape == (3, 128, 160)
    assert edges.max() == 1 and edges[:, 0, 0].eq(0).all()
    # Half of a line of this width lies on either side of where the filled shape ends.
    assert (edges[0] * mask).sum() == pytest.approx(float((edges[0] * (1 - mask)).sum()), rel=0.2)
    row = edges[0, round((asked.y + 1) * 64)]
    assert row.sum() == pytest.approx({"ring": 4, "triangle": 2 / 0.866}.get(subject, 2) * OUTLINE / 2 * 2, rel=0.15)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_mask_is_read_back_from_a_drawing(subject: str):
    asked = scene(subject, "yellow", "purple")
    seen, drawn = subject_mask(draw_scene(asked)), draw_mask(asked) > 0.5
    assert (seen & drawn).sum() / (seen | drawn).sum() > 0.93


def test_crowds_keep_apart_and_boxes_hold_the_faces():
    rng = np.random.default_rng(3)
    for height, width in ((96, 96), (128, 256), (512, 384)):
        scenes = crowd(rng, height, width, 3, 2)
        boxes = face_boxes(scenes, height, width)
        assert 1 <= len(boxes) == sum(s.subject == "face" for s in scenes)
        assert boxes.min() >= -0.01 and (boxes[:, 2] <= width + 0.01).all() and (boxes[:, 3] <= height + 0.01).all()
        drawn, faceless = (
            draw_crowd(group, height, width) for group in (scenes, [s for s in scenes if s.subject != "face"])
        )
        changed = (drawn - faceless).abs().sum(0) > 0.05
        for left, top, right, bottom in boxes.round().int().tolist():
            assert changed[top:bottom, left:right].float().mean() > 0.6
            changed[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = False
        assert not changed.any()
