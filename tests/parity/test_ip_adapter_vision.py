"""What sees guide pictures: SigLIP from its file, against transformers' own class and against ComfyUI's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.ip_adapter import VisionFile, squashed
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.ip_adapters import EMBED, SIDE, difference, guide, make_vision, vision_state, write_vision

PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def vision() -> Any:
    return make_vision()


def seen_by(file: VisionFile, picture: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return file.encode(picture[0], Unwatched())


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_file_sees_what_transformers_module_does(vision: Any, tmp_path: Path, stored: torch.dtype) -> None:
    file = VisionFile(write_vision(tmp_path / "vision.safetensors", vision, stored), PLACEMENT)
    picture = guide()
    with torch.inference_mode():
        theirs = vision(picture.movedim(-1, 1) * 2 - 1, output_hidden_states=True).hidden_states[-2][0]
    ours = seen_by(file, picture)
    assert ours.shape == (16, EMBED)
    assert difference(ours, theirs) < (1e-5 if stored == torch.float32 else 2e-3)


def test_pictures_of_any_size_are_squashed_as_transformers_processor_does(vision: Any, tmp_path: Path) -> None:
    """Pillow, under that processor, rounds to shades between its two passes: one shade of difference here and there."""
    from PIL import Image
    from transformers import SiglipImageProcessor

    for width, height in ((200, 90), (40, 130)):
        picture = torch.nn.functional.interpolate(guide(3).movedim(-1, 1), (height, width), mode="bilinear")[0]
        # Away from black and white, so that nothing that overshoots is cut off between the passes.
        picture = (picture * 153 + 51).round().movedim(0, -1)
        processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
        theirs = processor(Image.fromarray(picture.byte().numpy()), return_tensors="pt").pixel_values
        shades = (squashed(picture / 255, SIDE) - theirs).abs() * 127.5
        assert shades.max() < 2.01 and shades.mean() < 0.3


def test_a_full_device_sees_the_same_layer_by_layer(vision: Any, tmp_path: Path, monkeypatch: Any) -> None:
    file = VisionFile(write_vision(tmp_path / "vision.safetensors", vision), PLACEMENT)
    whole = seen_by(file, guide())
    module = file._encoder.resident().module
    forward, failures = module.forward, [torch.OutOfMemoryError("CUDA out of memory")]

    def full_once(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return forward(*arguments, **named)

    monkeypatch.setattr(module, "forward", full_once)
    assert difference(seen_by(file, guide()), whole) < 1e-6
    assert not failures


def loaded_by_comfy(comfy: Any, tmp_path: Path, kind: str, content: dict[str, torch.Tensor]) -> Any:
    """ComfyUI's own loader knows published sizes only, so its class is given the tiny one's configuration."""
    import comfy.clip_vision

    config = tmp_path / "config.json"
    sizes = {"hidden_size": EMBED, "image_size": SIDE, "intermediate_size": 160, "num_attention_heads": 2}
    more = {"num_channels": 3, "num_hidden_layers": 3, "patch_size": 14, "hidden_act": "gelu_pytorch_tanh"}
    means = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    config.write_text(json.dumps({"model_type": kind, **sizes, **more, **means}))
    model = comfy.clip_vision.ClipVisionModel(str(config))
    missing, _ = model.load_sd(content)
    assert not missing or kind != "siglip_vision_model"
    return model


def test_comfyui_s_clip_vision_sees_the_same(comfy: Any, vision: Any, tmp_path: Path) -> None:
    from sd3_local.host.clip_vision import ComfyImageEncoder

    # ComfyUI keeps vision encoders in half precision and computes in float32.
    content = {name: value.half() for name, value in vision_state(vision).items()}
    theirs = ComfyImageEncoder(loaded_by_comfy(comfy, tmp_path, "siglip_vision_model", content))
    file = VisionFile(write_vision(tmp_path / "vision.safetensors", vision, torch.float16), PLACEMENT)
    assert theirs.width == file.width == EMBED
    for picture in (guide(1), guide(2, 150, 70), guide(3, 33, 90)):
        with torch.inference_mode():
            seen = theirs.encode(picture[0], Unwatched())
        assert difference(seen_by(file, picture), seen) < 1e-5
        # The picture is squashed to its size exactly as ComfyUI does it.
        import comfy.clip_vision

        half = [0.5] * 3
        pixels = comfy.clip_vision.clip_preprocess(picture, size=SIDE, mean=half, std=half, crop=False)
        assert (squashed(picture[0], SIDE) - pixels).abs().max() < 1e-6


def test_other_vision_encoders_of_comfyui_are_refused(comfy: Any, vision: Any, tmp_path: Path) -> None:
    from sd3_local.host.clip_vision import ComfyImageEncoder

    clip = loaded_by_comfy(comfy, tmp_path, "clip_vision_model", {})
    dino = SimpleNamespace(get_sd=lambda: {"embeddings.cls_token": torch.zeros(1)})
    for other in (clip, dino):
        with pytest.raises(RequestError, match="clipVision is no SigLIP"):
            ComfyImageEncoder(other)
