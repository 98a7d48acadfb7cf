"""What a ControlNet's file is told by its header, what is refused with which words, and the rules of its residuals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sd3_local.pipelines.controlnet import ControlNetFile, ControlNetShape, check_control_nets, residual_of
from sd3_local.pipelines.controlnet.feature import steps_of, strengths
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.loading.faults import within
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.placement import LocalPlacement
from sd3_local.pipelines.request import ControlNet

from tests.checkpoints import TINY_CLIP_L, Shapes, TransformerSpec, write_checkpoint, write_hollow, write_tensors
from tests.engines import request

PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


def linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def common(layers: int, width: int, channels: int, pooled: int = 2048) -> Shapes:
    shapes: Shapes = {
        "pos_embed_input.proj.weight": (width, channels, 2, 2),
        "pos_embed_input.proj.bias": (width,),
        **linear("time_text_embed.timestep_embedder.linear_1", width, 256),
        **linear("time_text_embed.timestep_embedder.linear_2", width, width),
        **linear("time_text_embed.text_embedder.linear_1", width, pooled),
        **linear("time_text_embed.text_embedder.linear_2", width, width),
    }
    for layer in range(layers):
        shapes |= linear(f"controlnet_blocks.{layer}", width, width)
    return shapes


def joint(
    layers: int,
    width: int = 1536,
    channels: int = 16,
    table: int = 192,
    dual: tuple[int, ...] = (),
    rms: bool = False,
    context: int = 4096,
) -> Shapes:
    """The names and shapes of InstantX's, alimama's and tensorart's files."""
    shapes = common(layers, width, channels)
    shapes |= linear("context_embedder", width, context)
    shapes |= {
        "pos_embed.pos_embed": (1, table**2, width),
        "pos_embed.proj.weight": (width, 16, 2, 2),
        "pos_embed.proj.bias": (width,),
    }
    for layer in range(layers):
        block = f"transformer_blocks.{layer}"
        shapes |= linear(f"{block}.norm1.linear", (9 if layer in dual else 6) * width, width)
        shapes |= linear(f"{block}.norm1_context.linear", 6 * width, width)
        names = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_add_out"]
        names += ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]
        norms = ["attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k"]
        if layer in dual:
            names += ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]
            norms += ["attn2.norm_q", "attn2.norm_k"]
        for name in names:
            shapes |= linear(f"{block}.{name}", width, width)
        if rms:
            shapes |= {f"{block}.{norm}.weight": (64,) for norm in norms}
        for side in ("ff", "ff_context"):
            shapes |= linear(f"{block}.{side}.net.0.proj", 4 * width, width)
            shapes |= linear(f"{block}.{side}.net.2", width, 4 * width)
    return shapes


def stability(layers: int = 19, width: int = 2432, original: bool = True) -> Shapes:
    """The names and shapes of Stability's files, and of diffusers' versions of them."""
    shapes = common(layers, width, 16)
    for layer in range(layers):
        block = f"transformer_blocks.{layer}"
        if original:
            shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
            shapes |= linear(f"{block}.adaLN_modulation.1", 6 * width, width)
            shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
        else:
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes |= linear(f"{block}.attn.{name}", width, width)
            shapes |= linear(f"{block}.norm1.linear", 6 * width, width)
            shapes |= linear(f"{block}.ff.net.0.proj", 4 * width, width)
            shapes |= linear(f"{block}.ff.net.2", width, 4 * width)
    return shapes


PUBLISHED = {
    "InstantX Canny": (joint(6), ControlNetShape(6, 1536, 4096, 2048, 192, 16, False, (), None)),
    "InstantX Depth": (joint(12), ControlNetShape(12, 1536, 4096, 2048, 192, 16, False, (), None)),
    "alimama inpainting": (joint(23, channels=17), ControlNetShape(23, 1536, 4096, 2048, 192, 17, False, (), None)),
    "tensorart SD3.5 Medium": (
        joint(23, table=384, dual=tuple(range(13)), rms=True),
        ControlNetShape(23, 1536, 4096, 2048, 384, 16, True, tuple(range(13)), None),
    ),
    "Stability, original": (stability(), ControlNetShape(19, 2432, None, 2048, None, 16, False, (), None)),
    "Stability, diffusers": (
        stability(original=False),
        ControlNetShape(19, 2432, None, 2048, None, 16, False, (), None),
    ),
}


def opened(tmp_path: Path, shapes: Shapes) -> ControlNetFile:
    return ControlNetFile(write_hollow(tmp_path / "net.safetensors", shapes), PLACEMENT)


def refused(path: Path) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ControlNetFile(path, PLACEMENT)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].parameter == "model"
    return caught.value


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_known_by_their_shapes(tmp_path: Path, name: str) -> None:
    """At their true sizes; the files are holes, so nothing but the header can have been read."""
    shapes, expected = PUBLISHED[name]
    assert opened(tmp_path, shapes).shape == expected


def test_what_a_net_is_given_follows_its_kind() -> None:
    given = {name: (shape.shifted, shape.sees_pooled, shape.inpaints) for name, (_, shape) in PUBLISHED.items()}
    structure, large = (False, False, False), (True, True, False)
    assert given == {
        "InstantX Canny": structure,
        "InstantX Depth": structure,
        "alimama inpainting": (True, False, True),
        "tensorart SD3.5 Medium": structure,
        "Stability, original": large,
        "Stability, diffusers": large,
    }


@pytest.mark.parametrize(("number", "name"), [(0, "blur"), (1, "canny"), (2, "depth")])
def test_stability_s_files_say_what_they_are_for(tmp_path: Path, number: int, name: str) -> None:
    content = {key: torch.zeros(shape) for key, shape in stability(1, 64).items()}
    for value in (torch.tensor([number]).half(), torch.tensor(float(number))):
        path = write_tensors(tmp_path / "net.safetensors", {**content, "control_type": value})
        assert ControlNetFile(path, PLACEMENT).shape.type == name
    path = write_tensors(tmp_path / "net.safetensors", {**content, "control_type": torch.tensor([7.0])})
    assert "type 7; known are 0 (blur), 1 (canny), 2 (depth)" in str(refused(path))


OTHERS = {
    "a ControlNet for SDXL": {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "add_embedding.linear_1.bias": (8,),
    },
    "a ControlNet for Stable Diffusion 1.5 or 2": {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)},
    "a ControlNet for Flux": {"controlnet_x_embedder.weight": (8, 64), "controlnet_blocks.0.weight": (8, 8)},
    "a ControlNet for Qwen-Image": {
        "transformer_blocks.0.img_mlp.net.0.proj.weight": (8, 8),
        "controlnet_blocks.0.weight": (8, 8),
    },
    "a Control-LoRA for SDXL": {"lora_controlnet": (1,), "input_blocks.1.0.in_layers.2.up": (8, 8)},
    "it holds a LoRA": {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)},
    "it holds no model known here": {"weight": (3, 3)},
}


@pytest.mark.parametrize("told", OTHERS)
def test_files_of_other_kinds_are_named(tmp_path: Path, told: str) -> None:
    error = refused(write_hollow(tmp_path / "net.safetensors", OTHERS[told]))
    assert told in str(error)
    assert error.faults[0].code == "unsupportedModel"


@pytest.mark.parametrize("spec", [TransformerSpec(), TINY_CLIP_L], ids=["a transformer", "CLIP"])
def test_models_are_no_control_nets(tmp_path: Path, spec: Any) -> None:
    assert "is not a ControlNet: it holds a" in str(refused(write_checkpoint(tmp_path / "model.safetensors", spec)))


def without(name: str) -> Shapes:
    return {key: shape for key, shape in joint(2, 64).items() if key != name}


DAMAGED = {
    "lacks 1 of the tensors": without("transformer_blocks.1.attn.to_add_out.bias"),
    'is "pos_embed_input.proj.weight"': without("pos_embed_input.proj.weight"),
    'is "context_embedder.weight"': without("context_embedder.weight"),
    "no square": {**joint(2, 64), "pos_embed.pos_embed": (1, 50, 64)},
    "has the shape [9, 9]": {**joint(2, 64), "transformer_blocks.0.attn.to_q.weight": (9, 9)},
    "has a hint layer [64, 33, 2, 2]": {**joint(2, 64), "pos_embed_input.proj.weight": (64, 33, 2, 2)},
    "has 1 tensors in its blocks": {**joint(2, 64), "transformer_blocks.0.attn.ip_k.weight": (64, 64)},
}


@pytest.mark.parametrize("told", DAMAGED)
def test_incomplete_and_unknown_files_say_what_is_wrong(tmp_path: Path, told: str) -> None:
    assert told in str(refused(write_hollow(tmp_path / "net.safetensors", DAMAGED[told])))


def test_broken_files_and_pickles_with_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("no model")
    assert "is not a safetensors file" in str(refused(path))
    assert "is not there" in str(refused(tmp_path / "gone.safetensors"))
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (ran,))

    torch.save({"controlnet_blocks.0.weight": Attack()}, tmp_path / "net.pth")
    assert "refused before anything in it ran" in str(refused(tmp_path / "net.pth"))
    assert not ran.exists()


def test_a_file_of_torch_with_tensors_alone_is_read(tmp_path: Path) -> None:
    torch.save({name: torch.zeros(shape) for name, shape in joint(1, 64).items()}, tmp_path / "net.bin")
    assert ControlNetFile(tmp_path / "net.bin", PLACEMENT).shape.layers == 1


def test_a_diffusers_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "SD3-Controlnet-Canny"
    folder.mkdir()
    write_hollow(folder / "diffusion_pytorch_model.safetensors", joint(1, 64))
    assert ControlNetFile(folder, PLACEMENT).shape.layers == 1


def test_faults_are_told_of_the_field_that_named_the_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught, within("controlNet[1]"):
        ControlNetFile(tmp_path / "gone.safetensors", PLACEMENT)
    assert [(fault.code, fault.parameter) for fault in caught.value.faults] == [("missingModel", "controlNet[1].model")]


def model(blocks: int = 24, width: int = 1536, name: str = "SD3 Medium") -> Any:
    shape = SimpleNamespace(blocks=blocks, width=width, rms_norm=False, dual=())
    plan = SimpleNamespace(
        transformer=SimpleNamespace(shape=shape),
        name=name,
        context_width=4096,
        pooled_width=2048,
        native_side=1024,
        max_side=6144,
    )
    return SimpleNamespace(plan=plan)


def checked(tmp_path: Path, shapes: Shapes, picture: torch.Tensor, base: Any, **fields: Any) -> list[Any]:
    entries = [{"model": "net", "guideImage": "guide"}]
    materials = Materials(pictures={"guide": picture}, control_nets={"net": opened(tmp_path, shapes)})
    return check_control_nets(request(**fields, controlNet=entries), base, materials)


PICTURE = torch.rand(1, 64, 64, 3)
LARGE = model(38, 2432, "SD3.5 Large")


@pytest.mark.parametrize(
    ("shapes", "base", "fields", "told"),
    [
        (
            joint(6),
            LARGE,
            {},
            "models of width 1536 (SD3 Medium and SD3.5 Medium), but SD3.5 Large has a width of 2432",
        ),
        (stability(), model(), {}, "models of width 2432 (SD3.5 Large), but SD3 Medium has a width of 1536"),
        (joint(6, context=2048), model(), {}, "takes tokens of 2048 features, but SD3 Medium has 4096"),
        (joint(6), model(), {"width": 4096}, "at most 3072 pixels a side, but the picture is painted at 4096"),
    ],
)
def test_a_net_that_does_not_fit_is_refused_by_its_header(
    tmp_path: Path, shapes: Shapes, base: Any, fields: dict[str, int], told: str
) -> None:
    (fault,) = checked(tmp_path, shapes, PICTURE, base, **fields)
    assert told in fault.message
    assert (fault.code, fault.parameter) == ("incompatibleModel", "controlNet[0].model")


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (torch.rand(1, 1, 1, 3), "is 1 x 1 pixels"),
        (torch.rand(3, 64, 64, 3), "is a batch of 3 pictures"),
        (torch.rand(1, 64, 64, 2), "1, 3 or 4 channels"),
    ],
)
def test_a_guide_image_that_says_nothing_is_refused(tmp_path: Path, picture: torch.Tensor, told: str) -> None:
    (fault,) = checked(tmp_path, joint(6), picture, model(), numberResults=2)
    assert told in fault.message
    assert (fault.code, fault.parameter) == ("invalidGuideImage", "controlNet[0].guideImage")


def test_what_fits_has_no_fault(tmp_path: Path) -> None:
    assert checked(tmp_path, joint(23, channels=17), PICTURE, model()) == []
    assert checked(tmp_path, stability(), PICTURE, LARGE) == []


@pytest.mark.parametrize(
    ("blocks", "layers", "expected"),
    [
        (24, 6, [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4),
        (24, 12, [block // 2 for block in range(24)]),
        (24, 23, [*range(23), 22]),
        (38, 19, [block // 2 for block in range(38)]),
        (8, 3, [0, 0, 0, 1, 1, 1, 2, 2]),
        (24, 24, list(range(24))),
    ],
)
def test_which_residual_comes_after_which_block(blocks: int, layers: int, expected: list[int]) -> None:
    assert [residual_of(block, blocks, layers) for block in range(blocks)] == expected


def test_the_prompt_leads_by_weakening_early_residuals() -> None:
    def entry(mode: str) -> ControlNet:
        return ControlNet(model="net", guide_image="guide", weight=-2.0, control_mode=mode)

    assert strengths(entry("balanced"), 3) == strengths(entry("controlnet"), 3) == [-2.0] * 3
    assert strengths(entry("prompt"), 3) == pytest.approx([-2 * 0.825**2, -2 * 0.825, -2])


def test_windows_in_steps_and_in_percent() -> None:
    def steps(count: int, **window: int) -> list[int]:
        return list(steps_of(ControlNet(model="net", guide_image="guide", **window), count))

    assert steps(4) == [0, 1, 2, 3]
    assert steps(10, start_step=2, end_step=5) == [2, 3, 4]
    assert steps(10, start_step_percentage=25, end_step_percentage=50) == [3, 4]
    assert steps(4, start_step=7) == []
