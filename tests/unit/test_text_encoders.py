"""Putting the encoders' parts together, on fake encoders whose outputs can be read off: a token's state is its id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.text import (
    ClipOutput,
    Conditioning,
    ConditioningCache,
    TextEncoders,
    TokenBatch,
    combine,
    encode_clip,
    encode_t5,
    weighted_segments,
)
from sd3_local.pipelines.text.tokens import clip_tokens, t5_tokens
from torch import nn

END, PAD = 101, 0


class FakeEncoder(nn.Module):
    """Layer k's output of a token is `id + 1000 k` in every feature."""

    def __init__(self, width: int, layers: int = 6, projection: nn.Module | None = None):
        super().__init__()
        self.width = width
        self.config = SimpleNamespace(num_hidden_layers=layers)
        self.embedding = nn.Embedding(1, 1)
        self.calls = 0
        if projection is not None:
            self.text_projection = projection

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, output_hidden_states: bool = False) -> SimpleNamespace:
        self.calls += 1
        states = [input_ids[..., None].float().expand(-1, -1, self.width) + 1000 * k for k in range(7)]
        states = states[: self.config.num_hidden_layers + 1]
        return SimpleNamespace(hidden_states=tuple(states), last_hidden_state=states[-1] + 0.5)


class FakeTokenizers:
    """A token a letter: a is 1."""

    def clip_l(self, prompt: str) -> TokenBatch:
        return clip_tokens(self._groups(prompt), start=100, end=END, pad=END)

    def clip_g(self, prompt: str) -> TokenBatch:
        return clip_tokens(self._groups(prompt), start=100, end=END, pad=PAD)

    def t5(self, prompt: str) -> TokenBatch:
        return t5_tokens(self._groups(prompt), end=END, pad=PAD)

    def _groups(self, prompt: str) -> list[tuple[list[int], float]]:
        return [([ord(char) - 96 for char in text], weight) for text, weight in weighted_segments(prompt)]


def encoders(**kinds: Any) -> TextEncoders:
    return TextEncoders(FakeTokenizers(), **{"context_width": 8, "pooled_width": 5, **kinds})


def all_three(**changed: Any) -> TextEncoders:
    parts = {"clip_l": FakeEncoder(2), "clip_g": FakeEncoder(3), "t5": FakeEncoder(8)}
    return encoders(**{**parts, **changed})


# encode_clip, encode_t5


@pytest.mark.parametrize("clip_skip", range(5))
def test_clip_skip_counts_from_the_layer_before_the_last(clip_skip: int) -> None:
    output = encode_clip(FakeEncoder(2), FakeTokenizers().clip_l("c"), clip_skip)
    assert output.hidden.shape == (1, 77, 2)
    assert output.hidden[0, 1].tolist() == [3 + 1000 * (5 - clip_skip)] * 2
    # The pooled output does not move with it: last layer, at the first end token.
    assert output.pooled.tolist() == [[END + 6000.5] * 2]


def test_the_pooled_output_is_the_first_chunks_and_projected_where_there_is_a_projection() -> None:
    projection = nn.Linear(3, 4, bias=False)
    nn.init.constant_(projection.weight, 2.0)
    output = encode_clip(FakeEncoder(3, projection=projection), FakeTokenizers().clip_g("ab" * 60))
    assert output.hidden.shape == (1, 154, 3)
    assert output.pooled.tolist() == [[6 * (END + 6000.5)] * 4]


def test_weights_scale_from_the_empty_prompts_state_at_the_same_place() -> None:
    hidden = encode_clip(FakeEncoder(2), FakeTokenizers().clip_g("(c:1.5)d")).hidden[0, :, 0] - 5000
    # The empty prompt has its end token where the c is.
    assert hidden[:4].tolist() == pytest.approx([100, END + 1.5 * (3 - END), 4, END])
    t5 = encode_t5(FakeEncoder(8), FakeTokenizers().t5("d(c:0.5)"))[0, :, 0] - 6000.5
    assert t5[:3].tolist() == pytest.approx([4, PAD + 0.5 * 3, END])


def test_a_weight_of_zero_is_the_empty_prompt() -> None:
    clip, tokenizers = FakeEncoder(2), FakeTokenizers()
    weighted = encode_clip(clip, tokenizers.clip_g("(abc:0)")).hidden[:, :4]
    assert torch.equal(weighted, encode_clip(clip, tokenizers.clip_g("")).hidden[:, :4])


def test_results_are_float32_whatever_the_module_gives() -> None:
    class Half(FakeEncoder):
        def forward(self, *args: Any, **kwargs: Any) -> SimpleNamespace:
            output = super().forward(*args, **kwargs)
            return SimpleNamespace(
                hidden_states=tuple(state.bfloat16() for state in output.hidden_states),
                last_hidden_state=output.last_hidden_state.bfloat16(),
            )

    output = encode_clip(Half(2), FakeTokenizers().clip_l("a"))
    assert output.hidden.dtype == output.pooled.dtype == torch.float32
    assert encode_t5(Half(8), FakeTokenizers().t5("a")).dtype == torch.float32


def test_an_encoder_that_overflows_is_an_error() -> None:
    class Overflowing(FakeEncoder):
        def forward(self, *args: Any, **kwargs: Any) -> SimpleNamespace:
            output = super().forward(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state * torch.inf
            return output

    with pytest.raises(RequestError, match="Overflowing gives values that are not numbers"):
        encode_t5(Overflowing(8), FakeTokenizers().t5("a"))


# combine


def test_all_three_are_laid_out_as_sd3_was_trained() -> None:
    (conditioning,) = all_three().encode(["abc"])
    context = conditioning.context
    assert context.shape == (1, 154, 8)
    assert context[0, 1].tolist() == [5001.0] * 5 + [0.0] * 3
    assert context[0, 5].tolist() == [5000.0 + END] * 2 + [5000.0 + PAD] * 3 + [0.0] * 3
    assert context[0, 77].tolist() == [6001.5] * 8
    assert conditioning.pooled.tolist() == [[END + 6000.5] * 5]


@pytest.mark.parametrize("clip_l", [False, True])
@pytest.mark.parametrize("clip_g", [False, True])
@pytest.mark.parametrize("t5", [False, True])
def test_a_missing_encoder_leaves_zeros(clip_l: bool, clip_g: bool, t5: bool) -> None:
    present = {"clip_l": clip_l, "clip_g": clip_g, "t5": t5}
    whole = all_three()
    some = all_three(**{name: None for name, there in present.items() if not there})
    (full,), (part,) = whole.encode(["abc"]), some.encode(["abc"])
    clips, tail = full.context[:, :77].clone(), full.context[:, 77:]
    pooled = full.pooled.clone()
    if not clip_l:
        clips[..., :2] = 0
        pooled[..., :2] = 0
    if not clip_g:
        clips[..., 2:] = 0
        pooled[..., 2:] = 0
    expected = [clips] * (clip_l or clip_g or not t5) + [tail] * t5
    assert torch.equal(part.context, torch.cat(expected, dim=1))
    assert torch.equal(part.pooled, pooled)


@pytest.mark.parametrize(
    "wrong",
    [
        {"t5": FakeEncoder(7)},
        {"t5": FakeEncoder(9)},
        {"clip_g": FakeEncoder(2)},
        {"clip_g": FakeEncoder(4)},
        {"clip_g": FakeEncoder(6), "clip_l": None},
        {"clip_l": FakeEncoder(6), "clip_g": None},
        {"clip_l": FakeEncoder(9), "pooled_width": 12},
    ],
)
def test_encoders_of_another_model_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="do not fit the model") as caught:
        all_three(**wrong).encode(["a"])
    assert caught.value.faults[0].code == "incompatibleTextEncoder"


def test_combine_takes_parts_as_they_are() -> None:
    part = ClipOutput(torch.ones(1, 77, 4), torch.ones(1, 4))
    conditioning = combine(part, part, None, context_width=8, pooled_width=8)
    assert torch.equal(conditioning.context, torch.ones(1, 77, 8))
    assert torch.equal(conditioning.pooled, torch.ones(1, 8))


# TextEncoders


def test_one_encoder_is_placed_at_a_time_and_none_for_known_prompts() -> None:
    subject = all_three()
    events: list[tuple[str, int]] = []

    @contextmanager
    def place(module: FakeEncoder) -> Iterator[None]:
        before = module.calls
        events.append(("in", module.width))
        yield
        events.append((f"{module.calls - before} prompts", module.width))

    first = subject.encode(["a cat", None], 1, place=place)
    assert events == [(kind, width) for width in (2, 3, 8) for kind in ("in", "2 prompts")]
    again = subject.encode(["a cat", ""], 1, place=place)
    assert len(events) == 6
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert (subject.cache.hits, subject.cache.misses) == (2, 2)
    subject.encode(["a cat", "a dog"], 1, place=place)
    assert events[6:] == [(kind, width) for width in (2, 3, 8) for kind in ("in", "1 prompts")]


def test_equal_prompts_are_encoded_once() -> None:
    subject = all_three()
    one, other, third = subject.encode(["a", "b", "a"])
    assert one is third and not torch.equal(one.context, other.context)
    assert subject.t5.calls == 2


def test_another_clip_skip_is_another_conditioning_of_the_clips_only() -> None:
    subject = all_three()
    (zero,), (two,) = subject.encode(["a"], 0), subject.encode(["a"], 2)
    assert torch.equal(zero.context[:, :77, :5] - 2000, two.context[:, :77, :5])
    assert torch.equal(zero.context[:, 77:], two.context[:, 77:])


def test_too_few_layers_for_the_clip_skip_is_told_before_anything_is_placed() -> None:
    subject = all_three(clip_g=FakeEncoder(3, layers=4))

    def place(module: nn.Module) -> Any:
        raise AssertionError("placed")

    with pytest.raises(RequestError, match="allows 0 to 2") as caught:
        subject.encode(["a"], 3, place=place)
    fault = caught.value.faults[0]
    assert (fault.code, fault.parameter, fault.limits) == ("invalidClipSkip", "clipSkip", {"min": 0, "max": 2})
    # Without a CLIP there is nothing to skip.
    assert encoders(t5=FakeEncoder(8)).encode(["a"], 4)


# ConditioningCache


def conditioning(value: float) -> Conditioning:
    return Conditioning(torch.full((1, 1, 1), value), torch.full((1, 1), value))


def test_the_cache_lets_the_least_recently_used_go() -> None:
    cache = ConditioningCache(capacity=2)
    for value, prompt in enumerate("ab"):
        cache.put(prompt, 0, conditioning(value))
    assert cache.get("a", 0) is not None
    cache.put("c", 0, conditioning(2))
    assert cache.get("b", 0) is None
    assert cache.get("a", 1) is None
    assert cache.get("c", 0).pooled.item() == 2
    assert (len(cache), cache.hits, cache.misses) == (2, 2, 2)
    cache.clear()
    assert len(cache) == 0 and cache.get("a", 0) is None
