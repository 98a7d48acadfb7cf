"""One clear sentence for each choice of files that cannot be used, from their headers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.loading import ModelFiles, inspect_model

from tests.checkpoints import (
    TINY,
    TINY_CLIP_G,
    TINY_CLIP_L,
    TINY_T5,
    CheckpointSpec,
    T5Spec,
    TransformerSpec,
    VAESpec,
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


def refusal(files: ModelFiles) -> RequestError:
    with pytest.raises(RequestError) as caught:
        inspect_model(files)
    return caught.value


def only(files: ModelFiles) -> tuple[str, str, str]:
    """Code, parameter and message of the one fault of these files."""
    [fault] = refusal(files).faults
    return fault.code, fault.parameter, fault.message


def names(*listed: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(1, 1) for name in listed}


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (names("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight"), "a LoRA"),
        (
            names("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "transformer.pos_embed.proj.weight"),
            "a LoRA",
        ),
        (names("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight"), "a ControlNet"),
        (names("ip_adapter.0.to_k_ip.weight", "image_proj.norm.weight"), "an IP-Adapter"),
        (names("conditioner.embedders.0.x", "model.diffusion_model.input_blocks.0.0.weight"), "an SDXL model"),
        (
            names(
                "model.diffusion_model.input_blocks.0.0.weight",
                "first_stage_model.decoder.conv_in.weight",
                "cond_stage_model.transformer.text_model.x",
            ),
            "a Stable Diffusion 1.5 or 2 model",
        ),
        (names("model.diffusion_model.double_blocks.0.img_attn.qkv.weight"), "a Flux model"),
        (names("transformer_blocks.0.norm1_context.linear.weight", "single_transformer_blocks.0.x"), "a Flux model"),
        (names("double_layers.0.attn.w1q.weight"), "an AuraFlow model"),
        (names("visual.proj", "transformer.resblocks.0.ln_1.weight"), "a CLIP text encoder in OpenCLIP's layout"),
        (names("model.layers.0.self_attn.q_proj.weight"), "a language model"),
        (names("something.weight"), "no model known here"),
        ({}, "no model known here"),
    ],
)
def test_other_models_are_named(tmp_path: Path, content: dict[str, torch.Tensor], held: str) -> None:
    code, parameter, message = only(ModelFiles(write_tensors(tmp_path / "other.safetensors", content)))
    assert (code, parameter) == ("unsupportedModel", "model")
    assert message.startswith(f'"other.safetensors" is not an SD3 model: it holds {held}')


def test_a_component_chosen_in_the_wrong_place(tiny: Path, tmp_path: Path) -> None:
    vae = write_checkpoint(tmp_path / "vae.safetensors", VAESpec())
    clip = write_checkpoint(tmp_path / "clip.safetensors", TINY_CLIP_L)
    lora = write_tensors(tmp_path / "lora.safetensors", names("a.lora_up.weight"))
    assert only(ModelFiles(vae))[2].endswith("holds a VAE. Choose it as the VAE.")
    assert only(ModelFiles(clip))[2].endswith("holds a CLIP text encoder. Choose it as a text encoder.")
    assert only(ModelFiles(tiny, vae=clip)) == (
        "unsupportedVae",
        "vae",
        '"clip.safetensors" is not a VAE: it holds a CLIP text encoder.',
    )
    assert only(ModelFiles(tiny, text_encoders=(vae,)))[:2] == ("unsupportedTextEncoder", "textEncoder1")
    assert only(ModelFiles(tiny, text_encoders=(clip, lora)))[2] == (
        '"lora.safetensors" is not a text encoder of SD3: it holds a LoRA.'
    )


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    files = ModelFiles(tmp_path / "none.safetensors", empty, (tmp_path / "no.safetensors", empty))
    found = [(fault.code, fault.parameter) for fault in refusal(files).faults]
    assert sorted(found) == [
        ("invalidTextEncoder", "textEncoder2"),
        ("invalidVae", "vae"),
        ("missingModel", "model"),
        ("missingTextEncoder", "textEncoder1"),
    ]


PREFIXES = {
    "transformer": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "clip_l": "text_encoders.clip_l.transformer.",
    "clip_g": "text_encoders.clip_g.transformer.",
    "t5": "text_encoders.t5xxl.transformer.",
}


@pytest.mark.parametrize("kind", PREFIXES)
def test_every_missing_tensor_is_named(tmp_path: Path, kind: str) -> None:
    shapes = CheckpointSpec(**{"transformer": TransformerSpec(), kind: getattr(TINY, kind)}).shapes()
    for name in getattr(TINY, kind).shapes():
        rest = {each: shape for each, shape in shapes.items() if each != PREFIXES[kind] + name}
        code, parameter, message = only(ModelFiles(write_hollow(tmp_path / "a.safetensors", rest)))
        assert (code, parameter) == ("invalidModel", "model")
        assert "lacks 1 of the tensors of" in message and f'"{name}"' in message


@pytest.mark.parametrize("kind", PREFIXES)
def test_every_wrong_shape_is_refused(tmp_path: Path, kind: str) -> None:
    shapes = CheckpointSpec(**{"transformer": TransformerSpec(), kind: getattr(TINY, kind)}).shapes()
    for name, shape in getattr(TINY, kind).shapes().items():
        # The columns of these two are the model's own choice, their rows are not.
        free_columns = name in ("context_embedder.weight", "y_embedder.mlp.0.weight")
        wrong = (shape[0] - 1, *shape[1:]) if free_columns else (*shape[:-1], shape[-1] - 1)
        path = write_hollow(tmp_path / "a.safetensors", {**shapes, PREFIXES[kind] + name: wrong})
        error = refusal(ModelFiles(path))
        assert all(fault.parameter == "model" and "a.safetensors" in fault.message for fault in error.faults)


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path: Path) -> None:
    content = state_dict(TransformerSpec(), HALF)
    content["joint_blocks.1.x_block.mlp.fc1.weight"] = torch.zeros(500, 128, dtype=HALF)
    message = only(ModelFiles(write_tensors(tmp_path / "a.safetensors", content)))[2]
    assert (
        '"joint_blocks.1.x_block.mlp.fc1.weight" has the shape [500, 128]' in message and "needs [512, 128]" in message
    )


def test_types_that_are_not_supported(tmp_path: Path) -> None:
    content = state_dict(TransformerSpec(), HALF)
    content["joint_blocks.0.x_block.attn.qkv.weight"] = torch.zeros(384, 128, dtype=torch.uint8)
    message = only(ModelFiles(write_tensors(tmp_path / "a.safetensors", content)))[2]
    assert 'stores "joint_blocks.0.x_block.attn.qkv.weight" as U8' in message


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("context_processor.layers.0.attn.qkv.weight", "has a context processor"),
        ("joint_blocks.0.x_block.attn3.qkv.weight", "tensors in its blocks that SD3 does not have"),
        ("joint_blocks.0.x_block.attn.qkv.weight.absmax", "quantised form that is not supported"),
    ],
)
def test_extensions_of_the_architecture_are_refused(tmp_path: Path, extra: str, reason: str) -> None:
    content = {**state_dict(TransformerSpec(), HALF), extra: torch.zeros(2, dtype=HALF)}
    code, _, message = only(ModelFiles(write_tensors(tmp_path / "a.safetensors", content)))
    assert code == "unsupportedModel" and reason in message


def test_other_quantised_formats_are_refused(tmp_path: Path) -> None:
    content = scaled_fp8(state_dict(TransformerSpec()), "comfy_quant")
    name = "context_embedder.comfy_quant"
    content[name] = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    path = tmp_path / "a.safetensors"
    assert 'quantised as "nvfp4"' in only(ModelFiles(write_tensors(path, content)))[2]
    content[name] = torch.tensor(list(b"{"), dtype=torch.uint8)
    assert 'quantised as "unknown"' in only(ModelFiles(write_tensors(path, content)))[2]
    del content[name]
    content["context_embedder.weight_scale"] = torch.ones(128, 1)
    assert "one number a layer is supported" in only(ModelFiles(write_tensors(path, content)))[2]


def test_other_channels_and_tables_are_refused(tmp_path: Path) -> None:
    content = state_dict(TransformerSpec(), HALF)
    path = tmp_path / "a.safetensors"
    changed = {**content, "x_embedder.proj.weight": torch.zeros(128, 33, 2, 2, dtype=HALF)}
    assert "16 latent channels" in only(ModelFiles(write_tensors(path, changed)))[2]
    changed = {**content, "pos_embed": torch.zeros(1, 1000, 128, dtype=HALF)}
    assert "1000 places, which is no square" in only(ModelFiles(write_tensors(path, changed)))[2]
    changed = {**content, "joint_blocks.1000000000.x_block.attn.qkv.weight": torch.zeros(3, dtype=HALF)}
    assert "that SD3 does not have" in only(ModelFiles(write_tensors(path, changed)))[2]


def test_vaes_of_other_models_are_refused(tiny: Path, tmp_path: Path) -> None:
    sdxl = write_checkpoint(tmp_path / "sdxl_vae.safetensors", VAESpec(latent=4))
    code, parameter, message = only(ModelFiles(tiny, vae=sdxl))
    assert (code, parameter) == ("incompatibleVae", "vae") and "4 latent channels" in message
    quant = {**state_dict(VAESpec(), HALF), "post_quant_conv.weight": torch.zeros(16, 16, 1, 1, dtype=HALF)}
    assert (
        "quantisation convolutions" in only(ModelFiles(tiny, vae=write_tensors(tmp_path / "q.safetensors", quant)))[2]
    )
    video = {**state_dict(VAESpec(), HALF), "decoder.conv_in.weight": torch.zeros(32, 16, 3, 3, 3, dtype=HALF)}
    assert "VAE for video" in only(ModelFiles(tiny, vae=write_tensors(tmp_path / "v.safetensors", video)))[2]
    shallow = write_checkpoint(tmp_path / "s.safetensors", VAESpec((16, 32)))
    assert "VAE of 2 levels" in only(ModelFiles(tiny, vae=shallow))[2]


def test_encoders_that_do_not_fit_the_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    wide = write_checkpoint(tmp_path / "wide.safetensors", replace(TINY_CLIP_L, width=128))
    code, parameter, message = only(ModelFiles(tiny, text_encoders=(wide,)))
    assert (code, parameter) == ("incompatibleTextEncoder", "textEncoder1")
    assert "tokens of 192 and a pooled vector of 192 features; this model takes 128 and 128" in message
    t5 = write_checkpoint(tmp_path / "t5.safetensors", T5Spec(width=64, vocabulary=32))
    assert "tokens of 64 features; this model takes 128" in only(ModelFiles(tiny, text_encoders=(t5,)))[2]
    narrow = replace(TINY_CLIP_G, projection=32)
    other = write_checkpoint(tmp_path / "narrow.safetensors", narrow)
    assert "pooled vector of 96 features" in only(ModelFiles(tiny, text_encoders=(other,)))[2]


def test_two_encoders_of_one_kind_are_refused(tiny: Path, tmp_path: Path) -> None:
    files = [write_checkpoint(tmp_path / f"{name}.safetensors", TINY_CLIP_L) for name in "ab"]
    assert only(ModelFiles(tiny, text_encoders=tuple(files))) == (
        "incompatibleTextEncoder",
        "textEncoder2",
        '"b.safetensors" is a CLIP-L text encoder, and so is "a.safetensors"; choose one of them.',
    )


@pytest.mark.parametrize(
    ("spec", "extra", "reason"),
    [
        (TINY_T5, "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", "UMT5"),
        (TINY_T5, "encoder.block.0.layer.1.DenseReluDense.wi.weight", "T5 of the first version"),
    ],
)
def test_other_t5s_are_refused(tiny: Path, tmp_path: Path, spec: T5Spec, extra: str, reason: str) -> None:
    content = {**state_dict(spec, HALF), extra: torch.zeros(32, 4, dtype=HALF)}
    assert reason in only(ModelFiles(tiny, text_encoders=(write_tensors(tmp_path / "a.safetensors", content),)))[2]


def diffusers_folder(path: Path, listed: dict[str, object] | None = None) -> Path:
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    path.mkdir()
    (path / "model_index.json").write_text(json.dumps({**index, **(listed or {})}))
    return path


def test_folders_that_are_no_diffusers_model(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "folder without model_index.json" in only(ModelFiles(tmp_path / "plain"))[2]
    flux = diffusers_folder(tmp_path / "flux", {"_class_name": "FluxPipeline"})
    assert 'another architecture ("FluxPipeline")' in only(ModelFiles(flux))[2]
    bare = diffusers_folder(tmp_path / "bare")
    assert "has no transformer folder" in only(ModelFiles(bare))[2]
    (bare / "transformer").mkdir()
    assert "has no weights" in only(ModelFiles(bare))[2]
    (bare / "model_index.json").write_text("{")
    assert "is not a JSON object" in only(ModelFiles(bare))[2]


def test_an_index_of_shards_may_not_leave_its_folder_or_lie(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "model")
    (folder / "transformer").mkdir()
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    assert "names a file outside its folder" in only(ModelFiles(folder))[2]
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert only(ModelFiles(folder))[0] == "missingModel"
    write_tensors(folder / "transformer" / "gone.safetensors", {"b": torch.zeros(1)})
    assert 'names 1 tensors that its files do not have, the first is "a"' in only(ModelFiles(folder))[2]
    index.write_text("[]")
    assert "is not a JSON object" in only(ModelFiles(folder))[2]
    index.write_text("{}")
    assert "has no weight_map" in only(ModelFiles(folder))[2]
