"""Guidance, steps and the wish to stop, around a transformer whose answer is known."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.denoise import Guidance, Velocity
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.text import Conditioning

SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.0)


class Affine(torch.nn.Module):
    """v = timestep / 1000 + mean of the context + 10 x mean of the pooled, whatever x is; remembers its batch sizes."""

    def __init__(self):
        super().__init__()
        self.batches: list[int] = []

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep, **options):
        self.batches.append(len(hidden_states))
        level = timestep / 1000 + encoder_hidden_states.mean((1, 2)) + 10 * pooled_projections.mean(1)
        return (level.view(-1, 1, 1, 1).expand_as(hidden_states),)


class Seen(Unwatched):
    def __init__(self):
        self.steps: list[tuple[int, int]] = []
        self.foreseen: list[torch.Tensor] = []

    def step(self, done, total, x0, reused):
        self.steps.append((done, total))
        self.foreseen.append(x0)


def conditioning(value: float, tokens: int = 3) -> Conditioning:
    return Conditioning(torch.full((1, tokens, 4), value), torch.full((1, 2), value))


def velocity(guidance: Guidance, monitor=None, together=True, first_step=0, total_steps=4):
    transformer = Affine()
    return transformer, Velocity(
        transformer,
        guidance,
        SIGMAS,
        torch.float32,
        monitor or Unwatched(),
        first_step=first_step,
        total_steps=total_steps,
        together=together,
    )


X = torch.zeros(1, 16, 2, 2)


def test_without_a_negative_there_is_one_evaluation_and_no_guidance():
    transformer, v = velocity(Guidance(conditioning(0.5), None, 1.0))
    assert torch.allclose(v(X, 0.5), torch.full_like(X, 0.5 + 0.5 + 5.0))
    assert transformer.batches == [1]


@pytest.mark.parametrize(("together", "batches"), [(True, [2]), (False, [1, 1])])
def test_guidance_goes_from_the_negative_past_the_positive(together, batches):
    transformer, v = velocity(Guidance(conditioning(0.2), conditioning(0.1), 4.0), together=together)
    positive, negative = 0.5 + 0.2 + 2.0, 0.5 + 0.1 + 1.0
    assert torch.allclose(v(X, 0.5), torch.full_like(X, negative + 4.0 * (positive - negative)))
    assert transformer.batches == batches


def test_prompts_of_different_length_are_evaluated_apart():
    transformer, v = velocity(Guidance(conditioning(0.2, tokens=3), conditioning(0.1, tokens=6), 2.0))
    assert torch.allclose(v(X, 0.5), torch.full_like(X, 1.6 + 2.0 * (2.7 - 1.6)))
    assert transformer.batches == [1, 1]


def test_a_step_is_known_by_its_sigma_however_often_a_sampler_asks():
    seen = Seen()
    _, v = velocity(Guidance(conditioning(0.0), None, 1.0), seen, first_step=8, total_steps=12)
    for sigma in (1.0, 0.8, 0.75, 0.6, 0.5, 0.25, 0.1):
        v(X, sigma)
    assert seen.steps == [(9, 12), (9, 12), (10, 12), (10, 12), (11, 12), (12, 12), (12, 12)]


def test_the_picture_foreseen_is_where_the_velocity_leads():
    seen = Seen()
    _, v = velocity(Guidance(conditioning(0.3), None, 1.0), seen)
    x = torch.randn(1, 16, 2, 2)
    v(x, 0.5)
    assert torch.allclose(seen.foreseen[0], x - 0.5 * (0.5 + 0.3 + 3.0))


def test_whoever_watches_can_stop_before_the_next_evaluation():
    class Stop(Exception):
        pass

    class Stopping(Seen):
        def check(self):
            if len(self.steps) == 2:
                raise Stop

    transformer, v = velocity(Guidance(conditioning(0.0), None, 1.0), Stopping())
    v(X, 1.0)
    v(X, 0.75)
    with pytest.raises(Stop):
        v(X, 0.5)
    assert transformer.batches == [1, 1]
