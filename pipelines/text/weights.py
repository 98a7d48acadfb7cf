r"""A prompt's notation of emphasis: `(word)`, `(word:1.3)`, nested, and `\(` `\)` for parentheses that are meant."""

from __future__ import annotations

import math
import re

EMPHASIS = 1.1
"""What a pair of parentheses without a number multiplies the weight by."""

_PARENTHESIS = re.compile(r"(?<!\\)[()]")


def weighted_segments(prompt: str) -> list[tuple[str, float]]:
    """The prompt cut at its parentheses into `(text, weight)`, in order, parentheses and escapes removed.

    A number after a pair's last colon replaces the weight around it; a pair without one multiplies it by `EMPHASIS`.
    Parentheses that do not pair up stay as text. Equal to ComfyUI's reading of every prompt, but for one case: `nan`
    and `inf` are words here and no weights, because such a weight makes the whole picture black.
    """
    segments: list[tuple[str, float]] = []
    # A stack of own, not recursion: a prompt may nest deeper than Python's call stack.
    waiting = [(item, 1.0) for item in reversed(_items(prompt))]
    while waiting:
        item, weight = waiting.pop()
        if _is_group(item):
            text, weight = _open(item, weight)
            waiting.extend((inner, weight) for inner in reversed(_items(text)))
        else:
            segments.append((item.replace("\\)", ")").replace("\\(", "("), weight))
    return segments


def _items(text: str) -> list[str]:
    """`text` cut into its outermost groups, parentheses kept, and what lies between them.

    A closing parenthesis too many lowers the depth below zero, and it stays there: what follows is text until as many
    have been opened. Saved prompts rely on this reading.
    """
    items: list[str] = []
    start = depth = 0
    for match in _PARENTHESIS.finditer(text):
        at = match.start()
        if match.group() == "(":
            if depth == 0 and at > start:
                items.append(text[start:at])
                start = at
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                items.append(text[start : at + 1])
                start = at + 1
    if start < len(text):
        items.append(text[start:])
    return items


def _is_group(item: str) -> bool:
    return len(item) >= 2 and item[0] == "(" and item[-1] == ")" and item[-2] != "\\"


def _open(group: str, weight: float) -> tuple[str, float]:
    """What is inside the parentheses, and its weight."""
    text = group[1:-1]
    before, colon, number = text.rpartition(":")
    if colon and before:
        try:
            stated = float(number)
        except ValueError:
            stated = math.nan
        if math.isfinite(stated):
            return before, stated
    return text, weight * EMPHASIS
