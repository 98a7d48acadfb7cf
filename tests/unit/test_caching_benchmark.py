"""The measures of `bench caching` against closed forms, and its curves against points given by hand."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import SD3Transformer2DModel

from benchmarks import _caching_true_sizes, caching
from benchmarks._caching_frontier import Point, at, frontiers
from benchmarks._caching_measures import Meter, flops, psnr, ssim, transformer_parts
from benchmarks._caching_methods import Method
from benchmarks._caching_peers import _first_block_cache

WIDTH, TEXT, POOLED, TOKENS, WORDS, BATCH, BLOCKS = 128, 48, 40, 24, 7, 2, 3


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_a_known_error() -> None:
    picture = noise(20, 30, 3) * 0.5
    assert psnr(picture + 0.1, picture) == pytest.approx(20, abs=1e-4)
    assert psnr(picture + 0.01, picture) == pytest.approx(40, abs=1e-3)
    assert psnr(picture, picture) == 100


def test_ssim_of_even_pictures_is_its_luminance_term() -> None:
    for one, other in ((0.2, 0.6), (0.5, 0.4), (0.0, 1.0)):
        expected = (2 * one * other + 1e-4) / (one**2 + other**2 + 1e-4)
        found = ssim(*(torch.full((16, 20, 3), value, dtype=torch.float64) for value in (one, other)))
        assert found == pytest.approx(expected, abs=1e-9)


def test_ssim_of_one_window_is_the_formula_by_hand() -> None:
    x, y = noise(11, 11, 3, seed=1).double(), noise(11, 11, 3, seed=2).double()
    places = range(-5, 6)
    weights = torch.tensor([[math.exp(-(a * a + b * b) / 4.5) for b in places] for a in places], dtype=torch.float64)
    weights = (weights / weights.sum())[..., None]
    mx, my = (weights * x).sum((0, 1)), (weights * y).sum((0, 1))
    vx, vy = (weights * (x - mx) ** 2).sum((0, 1)), (weights * (y - my) ** 2).sum((0, 1))
    cov = (weights * (x - mx) * (y - my)).sum((0, 1))
    each = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim(x, y) == pytest.approx(each.mean().item(), abs=1e-9)


def test_ssim_is_one_for_the_same_and_falls_with_noise() -> None:
    picture = noise(32, 32, 3)
    values = [ssim((picture + s * (noise(32, 32, 3, seed=9) - 0.5)).clamp(0, 1), picture) for s in (0, 0.1, 0.3, 1)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert ssim(1 - picture, picture) < 0


@pytest.fixture(scope="module")
def transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        num_layers=BLOCKS,
        num_attention_heads=2,
        attention_head_dim=64,
        caption_projection_dim=WIDTH,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=12,
        qk_norm="rms_norm",
    ).eval()


@torch.inference_mode()
def call(transformer: SD3Transformer2DModel, sigma: float = 0.5, seed: int = 3) -> torch.Tensor:
    return transformer(
        hidden_states=noise(BATCH, 16, 8, 12, seed=seed),
        encoder_hidden_states=noise(BATCH, WORDS, TEXT, seed=4),
        pooled_projections=noise(BATCH, POOLED, seed=5),
        timestep=torch.full((BATCH,), 1000 * sigma),
        return_dict=False,
    )[0]


def by_hand(blocks: int, last: bool) -> int:
    """FLOPs of the transformer above with its first `blocks` blocks, `last` one included or not: two an
    addition-and-product.
    """
    w, streams = WIDTH, TOKENS + WORDS
    embed = TOKENS * w * 64 + WORDS * w * TEXT + 256 * w + w * w + POOLED * w + w * w
    head = w * 2 * w + TOKENS * w * 64
    attention = 2 * streams * streams * w
    image = 6 * w * w + TOKENS * (4 * w * w + 8 * w * w)
    text = 6 * w * w + WORDS * (4 * w * w + 8 * w * w)
    # The last block's text is only attended to: two modulations, and no way out of the block.
    last_text = 2 * w * w + WORDS * 3 * w * w
    full = blocks - last
    return 2 * BATCH * (embed + head + full * (attention + image + text) + last * (attention + image + last_text))


def test_a_whole_call_has_the_flops_of_its_matrices(transformer: SD3Transformer2DModel) -> None:
    meter = Meter(transformer_parts(transformer))
    with meter:
        call(transformer)
    assert meter.flops == by_hand(BLOCKS, last=True)
    with meter:
        call(transformer)
        call(transformer)
    assert meter.flops == 2 * by_hand(BLOCKS, last=True)
    assert not any(module._forward_hooks for module in transformer.modules())


def test_only_what_is_called_is_counted_and_nothing_twice(transformer: SD3Transformer2DModel) -> None:
    block, meter = transformer.transformer_blocks[0], Meter(transformer_parts(transformer))
    hidden, modulation = noise(BATCH, TOKENS, WIDTH), noise(BATCH, WIDTH)
    with torch.inference_mode(), meter:
        block.norm1(hidden, emb=modulation)
    assert meter.flops == 2 * BATCH * WIDTH * 6 * WIDTH == flops(block.norm1, (hidden,), {"emb": modulation})


def test_first_block_cache_computes_one_block_where_it_reuses(transformer: SD3Transformer2DModel) -> None:
    meter, blocks = Meter(transformer_parts(transformer)), transformer.transformer_blocks
    plain = call(transformer)
    with _first_block_cache(1e9, transformer), meter:
        assert torch.equal(call(transformer), plain)
        assert meter.flops == by_hand(BLOCKS, last=True)
        # Other latents at another sigma, and yet only the first block.
        again = call(transformer, sigma=0.4, seed=8)
        assert meter.flops == by_hand(BLOCKS, last=True) + by_hand(1, last=False)
        assert not torch.equal(again, plain)
        assert torch.allclose(call(transformer), plain, atol=1e-5)
    assert transformer.transformer_blocks is blocks
    with _first_block_cache(0, transformer), meter:
        call(transformer)
        assert torch.equal(call(transformer), plain)
    assert meter.flops == 2 * by_hand(BLOCKS, last=True)


def row(method: str, speedup: float, psnr: float, right: float) -> dict[str, object]:
    return {"method": method, "flops_speedup": speedup, "psnr": {"median": psnr}, "right": right}


def test_a_frontier_keeps_what_no_other_setting_beats() -> None:
    rows = [
        row("a", 1.0, 100, 1),
        row("a", 1.5, 50, 1),
        row("a", 1.8, 41, 1),
        row("a", 2.0, 42, 0.9),
        row("a", 3.0, 30, 0.8),
        row("b", 2.5, 35, 0.7),
    ]
    curves = frontiers(rows)
    assert curves == {"a": [Point(1.5, 50, 1), Point(2.0, 42, 0.9), Point(3.0, 30, 0.8)], "b": [Point(2.5, 35, 0.7)]}
    assert at(curves["a"], 2.25) == pytest.approx(Point(2.25, 39, 0.875))
    assert at(curves["a"], 2.0) == Point(2.0, 42, 0.9)
    assert at(curves["a"], 1.2) == Point(1.5, 50, 1)
    assert at(curves["a"], 3.1) is None
    assert at(curves["b"], 2) == Point(2.5, 35, 0.7)


def test_the_methods_of_an_earlier_run_are_added_once() -> None:
    def row(method: str, pictures: int = 3) -> dict:
        return {"method": method, "setting": "x", "pictures": pictures, "sizes": {"8x8": {}}}

    assert caching.joined([row("full"), row("a")], [row("full"), row("b")]) == [row("full"), row("a"), row("b")]
    with pytest.raises(SystemExit, match="not of 3 pictures"):
        caching.joined([row("full")], [row("b", 4)])


def test_the_worst_decile_lies_a_tenth_up() -> None:
    assert caching._spread(range(11)) == {"median": 5, "worst_decile": 1}
    assert caching._spread([4, 2]) == {"median": 3, "worst_decile": pytest.approx(2.2)}


def test_a_quick_run_has_the_ends_of_each_sweep() -> None:
    def named(name: str, setting: int) -> Method:
        return Method(name, str(setting), paint=lambda task: None)

    methods = [named("a", 1), named("a", 2), named("a", 3), named("b", 1)]
    assert caching.ends(methods) == [methods[0], methods[2], methods[3]]


TINY = _caching_true_sizes.Size("tiny", 3, None, side=8, words=WORDS, context=TEXT, pooled=POOLED)


def test_a_reused_step_of_sd3_medium_is_its_first_block_and_little_more() -> None:
    costs = {row["technique"]: row for row in _caching_true_sizes.counted(_caching_true_sizes.SIZES[0])}
    shares = {name: row["flops_reused"] / row["flops_computed"] for name, row in costs.items()}
    # 1 of 24 blocks, which are alike but for the last one's text; of the last one, the feed-forward.
    assert 1 / 24 < shares["fb"] < 1 / 24 + 0.002
    assert shares["tea"] < 0.001
    assert shares["fb"] + 0.01 < shares["db"] < shares["fb"] + 0.03
    assert costs["fb"]["flops_computed"] == pytest.approx(17.8e12, rel=0.01)


def test_steps_of_each_kind_are_timed() -> None:
    rows = list(_caching_true_sizes.timed(TINY, torch.device("cpu"), compiled=False))
    assert [row["technique"] for row in rows] == ["fb", "tea", "db"]
    for row in rows:
        assert all(row[name] > 0 for name in ("ms_plain", "ms_computed", "ms_reused", "ms_reused_measured"))
