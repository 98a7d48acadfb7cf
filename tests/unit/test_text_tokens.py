"""Chunks of 75 tokens, padding, and where the pooled output is read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sd3_local.pipelines.text.tokens import Group, TokenBatch, clip_tokens, t5_tokens

START, END, PAD = 100, 101, 0


def clip(*groups: Group) -> TokenBatch:
    return clip_tokens(groups, start=START, end=END, pad=PAD)


def words(batch: TokenBatch) -> list[list[int]]:
    """Each chunk's tokens, without start, end and padding."""
    return [row[1 : row.index(END)] for row in batch.ids.tolist()]


def test_an_empty_prompt_is_start_end_and_padding() -> None:
    batch = clip()
    assert batch.ids.tolist() == [[START, END] + [PAD] * 75]
    assert torch.equal(batch.ids[0], batch.empty)
    assert not batch.weighted
    assert batch.first_end == 1


@pytest.mark.parametrize(("count", "chunks"), [(1, [1]), (74, [74]), (75, [75]), (76, [75, 1]), (151, [75, 75, 1])])
def test_a_long_segment_is_cut_every_75_tokens(count: int, chunks: list[int]) -> None:
    batch = clip(([1 + i % 99 for i in range(count)], 1.0))
    assert batch.ids.shape == (len(chunks), 77)
    assert [len(chunk) for chunk in words(batch)] == chunks
    assert batch.first_end == min(count, 75) + 1


def test_a_segment_of_under_eight_tokens_is_not_broken() -> None:
    batch = clip(([1] * 70, 1.0), ([2] * 7, 1.5), ([3] * 2, 1.0))
    assert words(batch) == [[1] * 70, [2] * 7 + [3] * 2]
    assert batch.weights[0].tolist() == [1.0] * 77
    assert batch.weights[1].tolist() == [1.0] + [1.5] * 7 + [1.0] * 69


def test_a_segment_of_eight_tokens_is_broken() -> None:
    assert words(clip(([1] * 70, 1.0), ([2] * 8, 1.0))) == [[1] * 70 + [2] * 5, [2] * 3]


def test_an_end_token_in_the_prompt_ends_it_for_the_pooled_output() -> None:
    assert clip(([1, 2, END, 3], 1.0)).first_end == 3


def test_t5_is_padded_to_77_and_never_cut() -> None:
    short, long = (t5_tokens([([5] * count, 1.3)], end=1, pad=0) for count in (3, 500))
    assert short.ids.tolist() == [[5, 5, 5, 1] + [0] * 73]
    assert short.weights.tolist() == [pytest.approx([1.3] * 3 + [1.0] * 74)]
    assert short.empty.tolist() == [1] + [0] * 76
    assert long.ids.shape == long.weights.shape == (1, 501)
    assert len(long.empty) == 501


groups = st.lists(st.tuples(st.lists(st.integers(1, 99), max_size=90), st.sampled_from([0.5, 1.0, 1.3])), max_size=12)


@given(groups)
def test_chunking_loses_no_token_and_no_weight(groups: list[Group]) -> None:
    batch = clip(*groups)
    flat = [(token, weight) for ids, weight in groups for token in ids]
    found = [
        (token, pytest.approx(weight))
        for row, weights in zip(batch.ids.tolist(), batch.weights.tolist(), strict=True)
        for token, weight in zip(row, weights, strict=True)
        if token not in (START, END, PAD)
    ]
    assert found == flat
    assert batch.weighted == any(weight != 1.0 for _, weight in flat)
    assert all(row[0] == START and row.count(END) == 1 for row in batch.ids.tolist())
