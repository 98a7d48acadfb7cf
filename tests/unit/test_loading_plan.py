"""What files are taken for, from their headers alone."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.loading import ModelFiles, ModelPlan, checkpoint, inspect_model

from tests.checkpoints import (
    CLIP_G,
    CLIP_L,
    SD3_MEDIUM,
    SD3_VAE,
    SD35_LARGE,
    SD35_MEDIUM,
    T5_XXL,
    TINY,
    TINY_CLIP_G,
    TINY_CLIP_L,
    CheckpointSpec,
    ClipSpec,
    TransformerSpec,
    scaled_fp8,
    state_dict,
    write_checkpoint,
    write_hollow,
    write_tensors,
)

HALF = torch.float16


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", TINY)


def kinds(plan: ModelPlan) -> set[str]:
    return {kind for kind in ("transformer", "vae", "clip_l", "clip_g", "t5") if getattr(plan, kind) is not None}


def test_the_all_in_one_file(tiny: Path) -> None:
    plan = inspect_model(ModelFiles(tiny))
    assert kinds(plan) == {"transformer", "vae", "clip_l", "clip_g", "t5"}
    assert (plan.name, plan.max_side) == ("SD3 (2 blocks, width 128)", 512)
    assert (plan.context_width, plan.pooled_width) == (128, 128)
    for kind in kinds(plan):
        source, spec = getattr(plan, kind), getattr(TINY, kind)
        assert (source.kind, source.path, source.parameter, source.dtype) == (kind, tiny, "model", HALF)
        assert source.parameters == sum(math.prod(shape) for shape in spec.shapes().values())
        assert source.nbytes == 2 * source.parameters
        assert set(source.tensors) == set(spec.shapes())


def test_nothing_but_the_header_is_touched(tiny: Path) -> None:
    before = set(checkpoint._mappings)
    inspect_model(ModelFiles(tiny))
    assert set(checkpoint._mappings) <= before


@pytest.mark.parametrize(
    ("spec", "name", "side", "parameters"),
    [
        # The parameters are those of the published models, and for the transformers the position table's.
        (
            CheckpointSpec(SD3_MEDIUM, SD3_VAE, CLIP_L, CLIP_G, T5_XXL),
            "SD3 Medium",
            3072,
            2_028_328_000 + 192**2 * 1536,
        ),
        (CheckpointSpec(SD35_MEDIUM, SD3_VAE), "SD3.5 Medium", 6144, 2_243_171_520 + 384**2 * 1536),
        (CheckpointSpec(SD35_LARGE, SD3_VAE), "SD3.5 Large", 3072, 8_056_627_520 + 192**2 * 2432),
    ],
)
def test_published_models_are_known_by_their_shapes(
    tmp_path: Path, spec: CheckpointSpec, name: str, side: int, parameters: int
) -> None:
    path = write_hollow(tmp_path / "anything.safetensors", spec.shapes())
    started = time.perf_counter()
    plan = inspect_model(ModelFiles(path))
    print(f"{path.stat().st_size / 1e9:.1f} GB in {time.perf_counter() - started:.3f} s")
    assert (plan.name, plan.max_side) == (name, side)
    assert (plan.context_width, plan.pooled_width) == (4096, 2048)
    assert plan.transformer.parameters == parameters
    assert plan.vae is not None and plan.vae.parameters == 83_819_683
    if spec.t5 is not None:
        assert plan.clip_l is not None and plan.clip_l.parameters == 123_060_480
        assert plan.clip_g is not None and plan.clip_g.parameters == 694_659_840
        assert plan.t5 is not None and plan.t5.parameters == 4_762_310_656


@pytest.mark.parametrize("subset", range(8))
def test_any_subset_of_the_encoders(tmp_path: Path, subset: int) -> None:
    encoders = {kind: getattr(TINY, kind) for bit, kind in enumerate(("clip_l", "clip_g", "t5")) if subset >> bit & 1}
    path = write_checkpoint(tmp_path / "a.safetensors", CheckpointSpec(TransformerSpec(), **encoders))
    assert kinds(inspect_model(ModelFiles(path))) == {"transformer", *encoders}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
def test_a_bare_transformer_under_any_prefix(tmp_path: Path, prefix: str) -> None:
    spec = TransformerSpec(blocks=3, rms=True, dual=(0, 1))
    content = {prefix + name: value for name, value in state_dict(spec, HALF).items()}
    plan = inspect_model(ModelFiles(write_tensors(tmp_path / "a.safetensors", content)))
    assert kinds(plan) == {"transformer"}
    shape = plan.transformer.shape
    assert (shape.blocks, shape.width, shape.rms_norm, shape.dual, shape.table) == (3, 128, True, (0, 1), 32)


def test_separate_files_in_any_order_win_over_those_in_the_model(tiny: Path, tmp_path: Path) -> None:
    files = {
        kind: write_checkpoint(tmp_path / f"{index}.safetensors", getattr(TINY, kind))
        for index, kind in enumerate(("vae", "t5", "clip_g", "clip_l"))
    }
    plan = inspect_model(ModelFiles(tiny, files["vae"], (files["t5"], files["clip_l"], files["clip_g"])))
    for kind, path in files.items():
        assert getattr(plan, kind).path == path
    assert plan.transformer.path == tiny
    assert plan.t5 is not None and plan.t5.parameter == "textEncoder1"
    assert plan.clip_g is not None and plan.clip_g.parameter == "textEncoder3"
    assert plan.vae is not None and plan.vae.parameter == "vae"


@pytest.mark.parametrize(
    ("spec", "name", "kind"),
    [
        (TINY_CLIP_L, "any", "clip_l"),
        (TINY_CLIP_G, "any", "clip_g"),
        (replace(TINY_CLIP_L, projection=64), "my_clip_l", "clip_l"),
        (ClipSpec(768, 1, None, 64), "clip_g_by_mistake", "clip_l"),
        (ClipSpec(768, 1, 768, 64), "any", "clip_l"),
        (ClipSpec(1280, 1, 1280, 64), "clip_l_by_mistake", "clip_g"),
    ],
)
def test_the_clips_are_told_apart(tmp_path: Path, spec: ClipSpec, name: str, kind: str) -> None:
    model = write_hollow(tmp_path / "model.safetensors", TransformerSpec(1, 64, 4096, 2048, 4).shapes())
    path = write_hollow(tmp_path / f"{name}.safetensors", spec.shapes())
    rest = 2048 - spec.width
    others = {
        "clip_l": CheckpointSpec(clip_g=ClipSpec(rest, 1, rest, 64)),
        "clip_g": CheckpointSpec(clip_l=ClipSpec(rest, 1)),
    }
    fitting = write_hollow(tmp_path / "other.safetensors", others[kind].shapes())
    plan = inspect_model(ModelFiles(model, text_encoders=(path, fitting)))
    assert getattr(plan, kind).path == path


def test_encoders_of_an_all_in_one_file_chosen_as_encoders(tiny: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model.safetensors", TransformerSpec())
    plan = inspect_model(ModelFiles(model, vae=tiny, text_encoders=(tiny,)))
    assert kinds(plan) == {"transformer", "vae", "clip_l", "clip_g", "t5"}


@pytest.mark.parametrize("form", ["scaled_fp8", "comfy_quant"])
def test_the_storage_type_of_scaled_fp8(tmp_path: Path, form: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", scaled_fp8(state_dict(TransformerSpec()), form))
    assert inspect_model(ModelFiles(path)).transformer.dtype == torch.float8_e4m3fn


def test_plans_of_the_same_files_are_equal_and_of_changed_files_are_not(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiny, tmp_path / "copy.safetensors"))
    first = inspect_model(ModelFiles(copy))
    assert first == inspect_model(ModelFiles(copy))
    assert hash(first) == hash(inspect_model(ModelFiles(copy)))
    write_checkpoint(copy, TINY, torch.bfloat16)
    assert first != inspect_model(ModelFiles(copy))
