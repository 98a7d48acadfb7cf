"""What an IP-Adapter's file and an image encoder's are told by their headers, which are refused with which words, and
the formulas of combining and weighing.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.ip_adapter import (
    IPAdapterFile,
    IPAdapterShape,
    VisionFile,
    check_ip_adapters,
    fitting_encoder,
)
from sd3_local.pipelines.ip_adapter.combine import combined
from sd3_local.pipelines.ip_adapter.vision_keys import VisionShape, side_of
from sd3_local.pipelines.ip_adapter.weights import EXPERIMENTAL, block_weights
from sd3_local.pipelines.loading.faults import within
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.placement import LocalPlacement
from sd3_local.pipelines.request import IPAdapter

from tests.checkpoints import TINY_CLIP_L, Shapes, TransformerSpec, write_checkpoint, write_hollow
from tests.engines import request
from tests.ip_adapters import ORIGINAL, published_adapter, published_vision

PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)
LARGE = IPAdapterShape(38, 2432, 1152, 1280, 64, 4, 20, 320, 4)
SIGLIP = SimpleNamespace(name="siglip", width=1152, reading_seconds=0.0)


def opened(tmp_path: Path, shapes: Shapes, encoder: Any = SIGLIP) -> IPAdapterFile:
    return IPAdapterFile(write_hollow(tmp_path / "adapter.safetensors", shapes), encoder, PLACEMENT)


def refused(path: Path, open_file: Any = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        (open_file or (lambda file: IPAdapterFile(file, SIGLIP, PLACEMENT)))(path)
    assert len(caught.value.faults) == 1
    return caught.value


def refused_vision(path: Path) -> RequestError:
    return refused(path, lambda file: VisionFile(file, PLACEMENT))


@pytest.mark.parametrize("names", [None, ORIGINAL], ids=["InstantX", "diffusers"])
def test_the_published_adapter_is_known_by_its_shapes(tmp_path: Path, names: Any) -> None:
    file = opened(tmp_path, published_adapter(names=names))
    assert file.shape == LARGE
    assert file.reading_seconds == 0


def test_the_published_pickle_is_the_flat_file_in_two_dicts(tmp_path: Path) -> None:
    halves: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, shape in published_adapter(blocks=1, width=64, embed=1152).items():
        half, _, rest = name.partition(".")
        halves[half][rest] = torch.zeros(1).half().expand(shape)
    path = tmp_path / "ip-adapter.bin"
    torch.save(halves, path)
    assert IPAdapterFile(path, SIGLIP, PLACEMENT).shape == IPAdapterShape(1, 64, 1152, 1280, 64, 4, 20, 320, 4)


def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Mischief:
        def __reduce__(self):
            return (Path.touch, (mark,))

    path = tmp_path / "ip-adapter.bin"
    torch.save({"image_proj": {"latents": Mischief()}, "ip_adapter": {}}, path)
    assert "more in it than tensors" in str(refused(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "Stable Diffusion 1.5"),
        ({"image_proj.latents": (1, 16, 1280), "ip_adapter.1.to_k_ip.weight": (640, 2048)}, "SDXL"),
        ({"image_proj.proj.weight": (4096, 1152), "ip_adapter.0.to_k_ip.weight": (3072, 4096)}, "Flux"),
        ({"ip_adapter_proj_model.proj.weight": (4, 4)}, "Flux"),
        ({"lora_unet.lora_down.weight": (4, 4)}, "is not an IP-Adapter: it holds a LoRA"),
        ({"controlnet_blocks.0.weight": (4, 4)}, "it holds a ControlNet"),
        ({"ip_adapter.1.to_k_ip.weight": (4, 5)}, "lacks"),
    ],
)
def test_files_of_another_kind_are_told_what_they_are(tmp_path: Path, shapes: Shapes, words: str) -> None:
    assert words in str(refused(write_hollow(tmp_path / "other.safetensors", shapes)))


def test_a_text_file_and_a_text_encoder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_text("I am an IP-Adapter.")
    assert "not a safetensors file" in str(refused(path))
    assert "it holds a CLIP text encoder" in str(refused(write_checkpoint(path, TINY_CLIP_L)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ip_adapter.3.to_v_ip.weight": None}, 'the first is "ip_adapter.3.to_v_ip.weight"'),
        ({"image_proj.latents": None}, "image_proj.latents"),
        ({"image_proj.latents": (64, 1280)}, "does not fit together"),
        ({"ip_adapter.3.norm_k.weight": (72,)}, "has the shape [72]"),
        ({"ip_adapter.3.to_q_lora.down.weight": (4, 4)}, "no known IP-Adapter for SD3 has"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    shapes = {name: shape for name, shape in {**published_adapter(), **changed}.items() if shape is not None}
    error = refused(write_hollow(tmp_path / "adapter.safetensors", shapes))
    assert words in str(error)
    assert error.faults[0].parameter == "model"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (published_vision(), VisionShape(1152, 27, 16, 4304, 14, 384)),
        (published_vision(patch=16, tokens=1024), VisionShape(1152, 27, 16, 4304, 16, 512)),
        (published_vision(768, 12, 3072, 16, 196), VisionShape(768, 12, 12, 3072, 16, 224)),
        (published_vision(144, 3, 288, 8, 64), VisionShape(144, 3, 2, 288, 8, 64)),
    ],
    ids=["so400m 384", "so400m 512", "base 224", "nano"],
)
def test_image_encoders_are_known_by_their_shapes(tmp_path: Path, shapes: Shapes, expected: VisionShape) -> None:
    bare = {name.removeprefix("vision_model."): shape for name, shape in shapes.items()}
    for content in (shapes, bare):
        file = VisionFile(write_hollow(tmp_path / "vision.safetensors", content), PLACEMENT)
        assert (file.shape, file.width, file.reading_seconds) == (expected, expected.width, 0)


@pytest.mark.parametrize(("across", "patch", "side"), [(27, 14, 384), (16, 14, 224), (26, 14, 364), (32, 16, 512)])
def test_the_side_of_the_encoder_s_picture(across: int, patch: int, side: int) -> None:
    assert side_of(across, patch) == side


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"vision_model.embeddings.class_embedding": (1280,)}, "a CLIP vision encoder"),
        ({"embeddings.cls_token": (1, 1, 1024)}, "a DINOv2 vision encoder"),
        ({"image_proj.latents": (1, 4, 4)}, "an IP-Adapter"),
        ({"vision_model.embeddings.patch_embedding.weight": (1152, 3, 14, 14)}, "lacks 2"),
        ({**published_vision(), "vision_model.embeddings.position_embedding.weight": (730, 1152)}, "not fit together"),
    ],
)
def test_image_encoders_of_another_kind_are_refused(tmp_path: Path, shapes: Shapes, words: str) -> None:
    error = refused_vision(write_hollow(tmp_path / "vision.safetensors", shapes))
    assert words in str(error)
    assert error.faults[0].parameter == "encoder"


def test_an_encoder_of_another_width_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"1280.*1152.*sigclip") as caught:
        opened(tmp_path, published_adapter(), SimpleNamespace(name="other", width=1280, reading_seconds=0.0))
    assert caught.value.faults[0].parameter == "encoder"


def test_the_encoder_is_found_by_its_width_and_384_pixels_come_first(tmp_path: Path) -> None:
    def write(name: str, shapes: Shapes) -> Path:
        return write_hollow(tmp_path / name, shapes)

    adapter = write("adapter.safetensors", published_adapter())
    text = tmp_path / "a.safetensors"
    text.write_text("none")
    small = write("b.safetensors", published_vision(768, 12, 3072, 16, 196))
    with pytest.raises(RequestError, match="width 1152, such as sigclip_vision_patch14_384") as caught:
        fitting_encoder(adapter, [text, small])
    assert caught.value.faults[0].code == "missingEncoder"
    larger = write("c.safetensors", published_vision(patch=16, tokens=1024))
    published = write("d.safetensors", published_vision())
    for files, chosen in (([text, small, larger], larger), ([larger, published], published)):
        assert fitting_encoder(adapter, files) == chosen


def test_faults_are_told_of_the_request() -> None:
    with pytest.raises(RequestError) as caught, within("ipAdapters[1]"):
        raise RequestError("invalidModel", "It is empty.", "model")
    assert str(caught.value) == "ipAdapters[1].model: It is empty."


def checked(tmp_path: Path, shapes: Shapes, base: TransformerSpec, *guides: torch.Tensor) -> list[Any]:
    from tests.engines import open_model

    model = open_model(write_checkpoint(tmp_path / "model.safetensors", base))
    names = [f"guide {index}" for index in range(len(guides))]
    asked = request(ipAdapters=[{"model": "a", "guideImages": names}])
    materials = Materials(pictures=dict(zip(names, guides, strict=True)), ip_adapters={"a": opened(tmp_path, shapes)})
    return check_ip_adapters(asked, model, materials)


def test_an_adapter_for_another_model_is_refused_with_both(tmp_path: Path) -> None:
    fine = torch.zeros(1, 32, 32, 3)
    assert not checked(tmp_path, published_adapter(2, 128), TransformerSpec(2, 128), fine)
    for shapes in (published_adapter(), published_adapter(3, 128), published_adapter(2, 192)):
        (fault,) = checked(tmp_path, shapes, TransformerSpec(2, 128), fine)
        assert (fault.code, fault.parameter) == ("incompatibleModel", "ipAdapters[0].model")
        assert "width of 128 and 2 blocks" in fault.message
    assert (
        "width 2432 with 38 blocks (SD3.5 Large)"
        in checked(tmp_path, published_adapter(), TransformerSpec(2, 128), fine)[0].message
    )


def test_guide_images_are_checked_one_by_one_and_any_number_is_right(tmp_path: Path) -> None:
    fine, batch = torch.zeros(1, 32, 32, 3), torch.zeros(5, 32, 32, 4)
    guides = (fine, batch, torch.zeros(1, 1, 1, 3), torch.zeros(1, 32, 32, 2), fine * torch.nan)
    found = checked(tmp_path, published_adapter(2, 128), TransformerSpec(2, 128), *guides)
    assert [fault.parameter for fault in found] == [f"ipAdapters[0].guideImages[{index}]" for index in (2, 3, 4)]
    assert {fault.code for fault in found} == {"invalidGuideImages"}
    assert "1 x 1 pixels" in found[0].message


def entry(**fields: Any) -> IPAdapter:
    return IPAdapter(model="a", guide_images=("g",), **fields)


EIGHT = {
    "normal": [1] * 8,
    "ease_in": [0.05 + 0.95 * (7 - i) / 7 for i in range(8)],
    "ease_out": [0.05 + 0.95 * i / 7 for i in range(8)],
    "ease_in_out": [0.05 + 0.95 * min(i, 7 - i) / 3.5 for i in range(8)],
    "weak_input": [0.2, 0.2, 0.2, 1, 1, 1, 1, 1],
    "weak_middle": [1, 1, 1, 0.2, 0.2, 0.2, 1, 1],
    "weak_output": [1, 1, 1, 1, 1, 1, 0.2, 0.2],
    "strong_middle": [0.2, 0.2, 0.2, 1, 1, 1, 0.2, 0.2],
    "style_transfer": [0, 0, 0, 0, 1, 1, 1, 0],
    "strong_style_transfer": [1, 0, 0, 0, 1, 1, 1, 1],
    "composition": [0, 1, 1, 1, 0, 0, 0, 0],
    "style_and_composition": [0, 1, 1, 1, 1, 1, 1, 0],
    "strong_style_and_composition": [1] * 8,
}


@pytest.mark.parametrize("kind", EIGHT)
def test_weight_types_are_these_shares_of_the_weight(kind: str) -> None:
    assert block_weights(entry(weight_type=kind, weight=-1.5), 8) == pytest.approx([-1.5 * w for w in EIGHT[kind]])
    assert block_weights(entry(weight_type=kind, weight=0.0, weight_composition=0.5), 8) == (0,) * 8
    assert len(block_weights(entry(weight_type=kind), 1)) == 1


def test_every_weight_type_has_its_shares() -> None:
    from sd3_local.pipelines.fields import spec

    assert set(EIGHT) == set(spec(IPAdapter, "weightType").choices)


def test_layout_has_a_weight_of_its_own_where_it_is_treated_apart() -> None:
    for kind, shares in EIGHT.items():
        weights = block_weights(entry(weight_type=kind, weight=2.0, weight_composition=0.25), 8)
        apart = kind in EXPERIMENTAL and "composition" in kind
        own = [2.0 * share for share in shares]
        assert weights == pytest.approx([0.25 if apart and i in (1, 2, 3) else own[i] for i in range(8)])


def test_layout_and_style_blocks_part_the_middle_two_thirds_of_any_model() -> None:
    for blocks in range(2, 60):
        style, layout = (
            {i for i, w in enumerate(block_weights(entry(weight_type=kind), blocks)) if w}
            for kind in ("style_transfer", "composition")
        )
        assert layout and style and max(layout) + 1 == min(style)
        assert abs(len(layout) - blocks / 3) < 1 and abs(len(style) - blocks / 3) < 1


def test_pictures_are_combined_by_these_formulas() -> None:
    e = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(combined(e, "concat"), e)
    assert torch.allclose(combined(e, "add"), (e[0] + e[1] + e[2])[None])
    assert torch.allclose(combined(e, "subtract"), (e[0] - (e[1] + e[2]) / 2)[None], atol=1e-6)
    assert torch.allclose(combined(e, "average"), ((e[0] + e[1] + e[2]) / 3)[None])
    lengths = (e**2).sum(-1, keepdim=True) ** 0.5
    norm_average = sum(e[i] / lengths[i] for i in range(3)) / 3 * (lengths[0] + lengths[1] + lengths[2]) / 3
    assert torch.allclose(combined(e, "norm_average"), norm_average[None], atol=1e-6)
    # Longer tokens weigh no more, and nothing divides by a length of 0.
    louder = e * torch.tensor([1.0, 100.0, 1.0])[:, None, None]
    turned = torch.nn.functional.cosine_similarity(combined(louder, "norm_average"), norm_average[None], dim=-1)
    assert torch.allclose(turned, torch.ones_like(turned))
    assert combined(torch.zeros(2, 4, 5), "norm_average").isfinite().all()


@pytest.mark.parametrize("method", ["concat", "add", "subtract", "average", "norm_average"])
def test_one_picture_is_the_same_by_any_method(method: str) -> None:
    e = torch.randn(1, 4, 5)
    assert torch.equal(combined(e, method), e)
