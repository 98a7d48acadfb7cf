"""Loaded modules against ComfyUI's own, on the same files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from sd3_local.pipelines.loading import (
    ModelFiles,
    ModelPlan,
    inspect_model,
    load_clip,
    load_t5,
    load_transformer,
    load_vae,
)

from tests.checkpoints import (
    SD3_VAE,
    CheckpointSpec,
    ClipSpec,
    T5Spec,
    TransformerSpec,
    VAESpec,
    write_checkpoint,
)

TOLERANCE = 1e-5
FULL = {"storage": torch.float32, "compute": torch.float32}

TRANSFORMERS = {
    "sd3-medium": TransformerSpec(blocks=3, width=128),
    "sd3.5-medium": TransformerSpec(blocks=4, width=128, rms=True, dual=(0, 1, 2)),
    "sd3.5-large": TransformerSpec(blocks=3, width=192, context=160, pooled=96, table=24, rms=True),
    "dual in the last block": TransformerSpec(blocks=2, width=64, dual=(1,)),
}


def plan_of(
    path: Path, spec: CheckpointSpec | TransformerSpec | VAESpec, dtype: torch.dtype = torch.float32
) -> ModelPlan:
    return inspect_model(ModelFiles(write_checkpoint(path / "model.safetensors", spec, dtype, seed=3)))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the size of the values."""
    assert ours.shape == theirs.shape and theirs.std() > 0.01
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("spec", TRANSFORMERS.values(), ids=TRANSFORMERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_transformer(comfy: ModuleType, tmp_path: Path, spec: TransformerSpec, dtype: torch.dtype) -> None:
    import comfy.model_detection
    import comfy.ops
    import comfy.utils
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

    plan = plan_of(tmp_path, spec, dtype)
    ours = load_transformer(plan.transformer, storage=None, compute=torch.float32)
    content = comfy.utils.load_torch_file(str(plan.transformer.path))
    config = comfy.model_detection.detect_unet_config(content, "")
    theirs = OpenAISignatureMMDITWrapper(
        **config, num_blocks=spec.blocks, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init
    )
    assert not theirs.load_state_dict(content, strict=False).missing_keys
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(2, 16, 20, 28, generator=generator)
    context = torch.randn(2, 33, spec.context, generator=generator)
    pooled = torch.randn(2, spec.pooled, generator=generator)
    timestep = torch.tensor([873.5, 12.25])
    expected = theirs(latent, timestep, context=context, y=pooled)
    assert difference(ours(latent, context, pooled, timestep).sample, expected) < TOLERANCE


@pytest.mark.parametrize("spec", [SD3_VAE, VAESpec((24, 48, 96, 96), blocks=1)], ids=["sd3", "small"])
@torch.no_grad()
def test_vae(comfy: ModuleType, tmp_path: Path, spec: VAESpec) -> None:
    import comfy.sd
    import comfy.utils

    path = write_checkpoint(tmp_path / "vae.safetensors", spec, torch.float32)
    model = write_checkpoint(tmp_path / "model.safetensors", TransformerSpec())
    ours = load_vae(inspect_model(ModelFiles(model, path)).vae, compute=torch.float32)
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 48, 64, 3, generator=generator)
    encoded = ours.encode(picture.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    latent = torch.randn(1, 16, 6, 8, generator=generator)
    decoded = ours.decode(latent).sample
    if spec is not SD3_VAE:
        # ComfyUI knows this VAE in its true shape only.
        assert encoded.shape == (1, 16, 6, 8) and decoded.shape == (1, 3, 48, 64)
        return
    theirs = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))
    assert theirs.vae_dtype == torch.float32
    assert difference((decoded / 2 + 0.5).clamp(0, 1).movedim(1, -1), theirs.decode(latent)) < TOLERANCE
    assert difference(encoded, theirs.encode(picture)) < TOLERANCE
    assert (ours.config.scaling_factor, ours.config.shift_factor) == (1.5305, 0.0609)


@pytest.mark.parametrize("kind", ["clip_l", "clip_g"])
@torch.no_grad()
def test_clip(comfy: ModuleType, tmp_path: Path, kind: str) -> None:
    import comfy.clip_model
    import comfy.ops

    spec = ClipSpec(128, 4, 96 if kind == "clip_g" else None, vocabulary=49408)
    source = getattr(plan_of(tmp_path, CheckpointSpec(TransformerSpec(context=256, pooled=256), **{kind: spec})), kind)
    ours = load_clip(source, compute=torch.float32)
    config = {
        "num_hidden_layers": 4,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "hidden_act": "quick_gelu" if kind == "clip_l" else "gelu",
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }
    theirs = comfy.clip_model.CLIPTextModel(config, torch.float32, "cpu", comfy.ops.manual_cast)
    content = {name: entry.read() for name, entry in source.tensors.items()}
    projection = content.pop("text_projection.weight", None)
    assert theirs.load_state_dict(content, strict=False).missing_keys == ["text_projection.weight"]
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368, 49407] + [0] * 70, [49406, 49407] + [49407] * 75])
    last, hidden, _, pooled = theirs(ids, intermediate_output=-2, final_layer_norm_intermediate=False)
    result = ours(ids, output_hidden_states=True)
    assert difference(result.hidden_states[-2], hidden) < TOLERANCE
    assert difference(result.last_hidden_state, last) < TOLERANCE
    if projection is None:
        assert difference(result.pooler_output, pooled) < TOLERANCE
    else:
        assert difference(result.text_embeds, pooled @ projection.T) < TOLERANCE


@torch.no_grad()
def test_t5(comfy: ModuleType, tmp_path: Path) -> None:
    import comfy.ops
    import comfy.text_encoders.t5

    spec = T5Spec(width=128, layers=3, heads=8, head_width=24, hidden=200, vocabulary=300)
    source = plan_of(tmp_path, CheckpointSpec(TransformerSpec(), t5=spec)).t5
    ours = load_t5(source, **FULL)
    config = {
        "num_layers": 3,
        "d_model": 128,
        "d_kv": 24,
        "num_heads": 8,
        "d_ff": 200,
        "dense_act_fn": "gelu_pytorch_tanh",
        "is_gated_act": True,
        "vocab_size": 300,
        "model_type": "t5",
    }
    theirs = comfy.text_encoders.t5.T5(config, torch.float32, "cpu", comfy.ops.manual_cast)
    theirs.load_state_dict({name: entry.read() for name, entry in source.tensors.items()})
    ids = torch.randint(0, 300, (2, 90), generator=torch.Generator().manual_seed(1))
    expected, _ = theirs(ids, None)
    assert difference(ours(ids).last_hidden_state, expected) < TOLERANCE


@torch.no_grad()
def test_the_whole_file_as_comfys_checkpoint_loader_takes_it(comfy: ModuleType, tmp_path: Path) -> None:
    import comfy.sd

    spec = CheckpointSpec(TransformerSpec(blocks=2, width=128, context=4096, pooled=2048))
    plan = plan_of(tmp_path, spec, torch.float16)
    patcher, *_ = comfy.sd.load_checkpoint_guess_config(
        str(plan.transformer.path), output_vae=False, output_clip=False
    )
    theirs = patcher.model.diffusion_model.float()
    ours = load_transformer(plan.transformer, storage=None, compute=torch.float32)
    generator = torch.Generator().manual_seed(1)
    latent, context = torch.randn(1, 16, 16, 16, generator=generator), torch.randn(1, 7, 4096, generator=generator)
    pooled, timestep = torch.randn(1, 2048, generator=generator), torch.tensor([500.0])
    expected = theirs(latent, timestep, context=context, y=pooled)
    assert difference(ours(latent, context, pooled, timestep).sample, expected) < TOLERANCE


def test_the_shipped_model_loads() -> None:
    path = Path(__file__).parents[2] / "assets" / "nano" / "sd3-nano.safetensors"
    if not path.is_file():
        pytest.skip("The shipped model has not been made.")
    plan = inspect_model(ModelFiles(path))
    assert plan.name.startswith("SD3 (") and plan.vae and plan.clip_l and plan.clip_g and plan.t5 is None
    load_transformer(plan.transformer, storage=None, compute=torch.float32)
    load_vae(plan.vae, compute=torch.float32)
    load_clip(plan.clip_l, compute=torch.float32)
    load_clip(plan.clip_g, compute=torch.float32)
