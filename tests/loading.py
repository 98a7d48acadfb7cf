"""Loading and running each kind of component, for the tests that compare modules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sd3_local.pipelines.loading import load_clip, load_t5, load_transformer, load_vae

from tests.checkpoints import TransformerSpec

MODEL = TransformerSpec(blocks=3, rms=True, dual=(0,))
IDS = torch.tensor([[5, 17, 3, 200, 1, 0, 0]])

LOADERS: dict[str, Callable[..., torch.nn.Module]] = {
    "transformer": lambda source, dtype: load_transformer(source, storage=dtype, compute=dtype),
    "vae": lambda source, dtype: load_vae(source, compute=dtype),
    "clip_l": lambda source, dtype: load_clip(source, storage=dtype, compute=dtype),
    "clip_g": lambda source, dtype: load_clip(source, storage=dtype, compute=dtype),
    "t5": lambda source, dtype: load_t5(source, storage=dtype, compute=dtype),
}


def transformer_inputs(spec: TransformerSpec = MODEL, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(2, 16, 12, 16, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(2, 9, spec.context, generator=generator).to(dtype),
        "pooled_projections": torch.randn(2, spec.pooled, generator=generator).to(dtype),
        "timestep": torch.tensor([700.0, 30.0]),
    }


def run(module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The module's output for fixed inputs, whichever component it is."""
    with torch.no_grad():
        match type(module).__name__:
            case "SD3Transformer2DModel":
                return module(**transformer_inputs(dtype=dtype)).sample
            case "AutoencoderKL":
                latent = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(5))
                return module.decode(latent.to(dtype)).sample
            case "CLIPTextModelWithProjection":
                return module(torch.tensor([[510, 4, 9, 511, 511]])).text_embeds
            case "CLIPTextModel":
                return module(torch.tensor([[510, 4, 9, 511, 511]])).pooler_output
            case _:
                return module(IDS).last_hidden_state


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
