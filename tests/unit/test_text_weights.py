"""Prompt weights, by what ComfyUI's notation means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd3_local.pipelines.text.weights import weighted_segments


@pytest.mark.parametrize(
    ("prompt", "segments"),
    [
        ("", []),
        ("a red cat", [("a red cat", 1.0)]),
        ("a (red) cat", [("a ", 1.0), ("red", 1.1), (" cat", 1.0)]),
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("((red))", [("red", 1.1 * 1.1)]),
        # A number replaces the weight around it; without one the weight around it is raised.
        ("(a (b:0.5) (c) d:2)", [("a ", 2.0), ("b", 0.5), (" ", 2.0), ("c", 2.2), (" d", 2.0)]),
        ("(a:-1)(b:0)", [("a", -1.0), ("b", 0.0)]),
        ("(12:30:1.5)", [("12:30", 1.5)]),
        ("(half past:nine)", [("half past:nine", 1.1)]),
        ("(:1.3)", [(":1.3", 1.1)]),
        ("()", []),
        (r"a \(red\) cat", [("a (red) cat", 1.0)]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        (r"(a\)", [("(a)", 1.0)]),
        (r"\\(a)", [("\\(a)", 1.0)]),
        # Parentheses that do not pair up.
        ("a (red", [("a ", 1.0), ("(red", 1.0)]),
        ("((red)", [("(red", 1.1)]),
        ("red) (cat) dog", [("red) (cat) dog", 1.0)]),
        ("a) ((b)) c", [("a) (", 1.0), ("b", 1.1), (") c", 1.0)]),
        # No weights: one such token would make the whole picture black.
        ("(a:nan)(b:inf)(c:1e999)", [("a:nan", 1.1), ("b:inf", 1.1), ("c:1e999", 1.1)]),
    ],
)
def test_segments(prompt: str, segments: list[tuple[str, float]]) -> None:
    found = weighted_segments(prompt)
    assert [text for text, _ in found] == [text for text, _ in segments]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in segments])


def test_nesting_deeper_than_the_call_stack() -> None:
    (segment,) = weighted_segments("(" * 1500 + "a:0.5" + ")" * 1500)
    assert segment == ("a", 0.5)


@given(st.text(alphabet=st.characters(exclude_characters="()"), min_size=1))
def test_text_without_parentheses_is_one_segment(text: str) -> None:
    assert weighted_segments(text) == [(text, 1.0)]


@given(st.text(alphabet="ab ():.1\\"))
def test_text_is_kept_but_for_the_notation(prompt: str) -> None:
    kept = "".join(text for text, _ in weighted_segments(prompt))
    assert [char for char in kept if char in "ab "] == [char for char in prompt if char in "ab "]
