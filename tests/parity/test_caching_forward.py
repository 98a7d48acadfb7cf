"""The transformer taken apart is the transformer, to the last bit; reused on the same input it is nearly that."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sd3_local.caching import CacheOptions, CacheRun, DiffusersForward
from sd3_local.caching.techniques import PASSES

from tests.ip_adapters import EMBED, make_adapter, randomise

BLOCKS, WIDTH = 4, 128
TECHNIQUES = ("fb", "tea", "db")


def make_transformer(**options: Any) -> Any:
    from diffusers import SD3Transformer2DModel

    made = SD3Transformer2DModel(
        sample_size=8,
        num_layers=BLOCKS,
        num_attention_heads=WIDTH // 64,
        joint_attention_dim=48,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        **options,
    )
    randomise(made, 3)
    return made.requires_grad_(False).eval()


@pytest.fixture(
    scope="module", params=[{}, {"qk_norm": "rms_norm", "dual_attention_layers": (0, BLOCKS - 1)}], ids=["3", "3.5"]
)
def transformer(request: pytest.FixtureRequest) -> Any:
    return make_transformer(**request.param)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS = {
    "latents": draw(2, 16, 12, 8, seed=1),
    "context": draw(2, 7, 48, seed=2),
    "pooled": draw(2, 32, seed=3),
    "timestep": torch.tensor([700.0, 700.0]),
}
RESIDUALS = {"no net": 0, "a residual a block": BLOCKS, "fewer": 2}


def residuals(count: int) -> list[torch.Tensor] | None:
    return [draw(2, 24, WIDTH, seed=10 + index) for index in range(count)] or None


def whole(transformer: Any, added: list[torch.Tensor] | None, attention: dict[str, Any] | None = None) -> torch.Tensor:
    return transformer(
        hidden_states=INPUTS["latents"],
        encoder_hidden_states=INPUTS["context"],
        pooled_projections=INPUTS["pooled"],
        timestep=INPUTS["timestep"],
        block_controlnet_hidden_states=added,
        joint_attention_kwargs=attention,
        return_dict=False,
    )[0]


def parts(transformer: Any, residuals=lambda: None, attention=lambda: None) -> DiffusersForward:
    return DiffusersForward(transformer, *INPUTS.values(), residuals=residuals, attention=attention)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("count", RESIDUALS.values(), ids=RESIDUALS)
def test_computed_in_parts_it_is_the_same(transformer: Any, technique: str, count: int) -> None:
    made = PASSES[technique](parts(transformer, lambda: residuals(count))).compute()
    assert torch.equal(made.output, whole(transformer, residuals(count)))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("count", RESIDUALS.values(), ids=RESIDUALS)
def test_reused_on_the_same_input_it_is_the_same_but_for_rounding(transformer: Any, technique: str, count: int) -> None:
    made = PASSES[technique](parts(transformer, lambda: residuals(count))).compute()

    def never() -> None:
        raise AssertionError("a ControlNet ran in a reused step")

    again = PASSES[technique](parts(transformer, never))
    reused = again.resume(again.base + made.tail)
    expected = whole(transformer, residuals(count))
    assert ((reused - expected).norm() / expected.norm()).item() < 1e-5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_an_ip_adapter_that_diffusers_loaded_acts_in_every_part(technique: str) -> None:
    transformer = make_transformer()
    halves = make_adapter(BLOCKS, WIDTH, seed=30)
    transformer._load_ip_adapter_weights(halves)
    for processor in transformer.attn_processors.values():
        processor.scale = 1.0
    given = {"ip_adapter_image_embeds": draw(2, 5, EMBED, seed=9)}
    expected = whole(transformer, None, dict(given))
    made = PASSES[technique](parts(transformer, attention=lambda: given)).compute()
    assert torch.equal(made.output, expected)
    assert not torch.allclose(expected, whole(transformer, None), atol=1e-3) and list(given) == [
        "ip_adapter_image_embeds"
    ]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_blocks_compiled_one_by_one_stay_whole_graphs(technique: str) -> None:
    """What is decided between them is outside of what is compiled."""
    transformer = make_transformer()
    expected = PASSES[technique](parts(transformer)).compute().output
    for block in transformer.transformer_blocks:
        block.compile(backend="eager", fullgraph=True)
    sigmas = [0.9, 0.7, 0.5, 0.3, 0.0]
    run = CacheRun(CacheOptions(technique, math.inf, range(4), 1), sigmas, torch.device("cpu"))
    outputs = [run.evaluate(sigma, {"all": parts(transformer)})[0] for sigma in sigmas[:-1]]
    assert run.trace.compact == "CrCC"
    assert torch.allclose(outputs[0], expected, atol=1e-5)
    assert torch.allclose(outputs[1], expected, atol=1e-4)


def test_the_modulated_input_is_what_the_first_block_s_attention_is_given(transformer: Any) -> None:
    seen = []
    handle = transformer.transformer_blocks[0].attn.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named["hidden_states"]), with_kwargs=True
    )
    forward = parts(transformer)
    signal = PASSES["tea"](forward).signal()
    forward.first()
    handle.remove()
    assert torch.equal(signal, seen[0])
