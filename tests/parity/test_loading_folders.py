"""Models that diffusers and transformers have saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.loading import ModelFiles, inspect_model

from tests.checkpoints import write_tensors
from tests.loading import LOADERS, relative, run


def stock_modules() -> dict[str, Any]:
    """Tiny stock modules with random weights, by the folder in which a pipeline saves them."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    torch.manual_seed(0)
    clip = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 1,
        "vocab_size": 512,
        "projection_dim": 64,
        "bos_token_id": 510,
        "eos_token_id": 511,
    }
    modules = {
        "transformer": SD3Transformer2DModel(
            num_layers=3,
            num_attention_heads=2,
            joint_attention_dim=128,
            caption_projection_dim=128,
            pooled_projection_dim=128,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 32, 32, 64),
            layers_per_block=2,
            latent_channels=16,
            norm_num_groups=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**clip)),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**clip, hidden_act="gelu")),
        "text_encoder_3": T5EncoderModel(
            T5Config(
                d_model=128,
                d_kv=16,
                d_ff=160,
                num_layers=2,
                num_heads=4,
                vocab_size=384,
                feed_forward_proj="gated-gelu",
            )
        ),
    }
    for module in modules.values():
        for name, parameter in module.named_parameters():
            if "norm" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
    return {name: module.eval() for name, module in modules.items()}


KINDS = {
    "transformer": "transformer",
    "vae": "vae",
    "text_encoder": "clip_l",
    "text_encoder_2": "clip_g",
    "text_encoder_3": "t5",
}


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return stock_modules()


@pytest.mark.parametrize(
    "options",
    [{}, {"max_shard_size": "300KB"}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "300KB"}],
    ids=["single", "sharded", "variant", "sharded variant"],
)
def test_diffusers_folders(stock: dict[str, Any], tmp_path: Path, options: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    listed = ", ".join(f'"{name}": ["x", "y"]' for name in stock)
    (folder / "model_index.json").write_text(f'{{"_class_name": "StableDiffusion3Pipeline", {listed}}}')
    for name, module in stock.items():
        module.save_pretrained(folder / name, **options)
    plan = inspect_model(ModelFiles(folder))
    for name, module in stock.items():
        source = getattr(plan, KINDS[name])
        assert source.path == folder / name
        ours = LOADERS[KINDS[name]](source, torch.float32)
        state, expected = ours.state_dict(), module.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[each], expected[each]) for each in expected), name
        # Not equal to the last bit: kernels round by where in memory the weights begin.
        assert relative(run(ours), run(module)) < 1e-6, name


def test_single_files_in_diffusers_layout(stock: dict[str, Any], tmp_path: Path) -> None:
    paths = {
        name: write_tensors(tmp_path / f"{name}.safetensors", dict(stock[name].state_dict()))
        for name in ("transformer", "vae")
    }
    plan = inspect_model(ModelFiles(paths["transformer"], paths["vae"]))
    for name in paths:
        assert torch.equal(run(LOADERS[name](getattr(plan, name), torch.float32)), run(stock[name])), name
