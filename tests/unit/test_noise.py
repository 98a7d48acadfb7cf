"""Noise from seeds: a CPU generator's values, the same alone and in a batch, apart from the global generator."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.samplers import NoiseStream, initial_noise

SHAPE = (16, 8, 12)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 1, 2**63 - 1, 2**64 - 1])
def test_a_seed_means_what_it_means_to_a_cpu_generator(seed: int):
    noise = initial_noise(seed, SHAPE)
    assert (noise.dtype, noise.device.type, noise.shape) == (torch.float32, "cpu", SHAPE)
    assert torch.equal(noise, torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed(seed)))
    assert torch.equal(noise, torch.randn((1, *SHAPE), generator=torch.manual_seed(seed))[0])


def test_different_seeds_give_different_noise():
    seeds = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    drawn = {initial_noise(seed, (16,)).numpy().tobytes() for seed in seeds}
    assert len(drawn) == len(seeds)


def test_only_the_low_32_bits_of_a_seed_count():
    """PyTorch's CPU generator is a Mersenne Twister seeded with 32 bits, so this holds in ComfyUI and diffusers too."""
    assert torch.equal(initial_noise(2**32 + 7, SHAPE), initial_noise(7, SHAPE))


def test_a_stream_begins_with_the_initial_noise_and_goes_on_from_it():
    stream = NoiseStream([42], SHAPE)
    generator = torch.Generator("cpu").manual_seed(42)
    assert torch.equal(stream.initial[0], initial_noise(42, SHAPE))
    assert torch.equal(stream.initial[0], torch.randn(SHAPE, generator=generator))
    for _ in range(3):
        assert torch.equal(stream()[0], torch.randn(SHAPE, generator=generator))


def test_a_result_draws_the_same_alone_and_in_a_batch():
    batch, alone = NoiseStream([9, 10, 11], SHAPE), NoiseStream([10], SHAPE)
    assert batch.initial.shape == (3, *SHAPE)
    assert torch.equal(batch.initial[1], alone.initial[0])
    assert torch.equal(batch()[1], alone()[0])
    assert torch.equal(batch()[1], alone()[0])


def test_no_draw_repeats_another():
    stream = NoiseStream([1, 2], (64,))
    drawn = [stream.initial, stream(), stream()]
    rows = torch.cat(drawn).double()
    overlap = (rows @ rows.T / 64).fill_diagonal_(0)
    assert float(overlap.abs().max()) < 0.6


def test_the_global_generator_is_neither_read_nor_changed():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    stream = NoiseStream([5], SHAPE)
    first = stream()
    initial_noise(6, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(456)
    again = NoiseStream([5], SHAPE)
    assert torch.equal(first, again())


def test_noise_is_standard_normal():
    noise = NoiseStream([77], (16, 64, 64))().double()
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_noise_is_drawn_on_the_cpu_and_carried_to_the_device():
    stream = NoiseStream([3], SHAPE, torch.device("meta"))
    assert stream.initial.device.type == "meta"
    assert stream().device.type == "meta"
