"""The tokenizers of SD3's three text encoders, from the folders that ComfyUI ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .tokens import Group, TokenBatch, clip_tokens, t5_tokens
from .weights import weighted_segments

CLIP_G_PAD = 0
"""CLIP-G was trained with "!" after the end token, CLIP-L with the end token repeated."""

T5_PAD = 0


@dataclass(frozen=True)
class TokenizerFiles:
    """Folders of tokenizer files. The host passes their paths, since the engine knows nothing of ComfyUI."""

    clip: Path
    """vocab.json and merges.txt, shared by CLIP-L and CLIP-G."""
    t5: Path
    """tokenizer.json."""


class Tokenizers:
    """Tokenizes prompts, reading their weights. Each tokenizer is loaded on its first use and kept.

    The classes are those that ComfyUI itself uses, so that a prompt has the same tokens in both whatever version of
    transformers is installed. One difference is meant: `embedding:name` is plain text here.
    """

    def __init__(self, files: TokenizerFiles):
        self.files = files

    def clip_l(self, prompt: str) -> TokenBatch:
        start, end = self._clip("")
        return clip_tokens(self._clip_groups(prompt), start=start, end=end, pad=end)

    def clip_g(self, prompt: str) -> TokenBatch:
        start, end = self._clip("")
        return clip_tokens(self._clip_groups(prompt), start=start, end=end, pad=CLIP_G_PAD)

    def t5(self, prompt: str) -> TokenBatch:
        (end,) = self._t5("")
        groups = [(self._t5(text)[:-1], weight) for text, weight in weighted_segments(_encodable(prompt))]
        return t5_tokens(groups, end=end, pad=T5_PAD)

    def _clip_groups(self, prompt: str) -> list[Group]:
        return [(self._clip(text)[1:-1], weight) for text, weight in weighted_segments(_encodable(prompt))]

    @cached_property
    def _clip(self) -> Callable[[str], list[int]]:
        from transformers import CLIPTokenizer

        return _load(CLIPTokenizer, self.files.clip)

    @cached_property
    def _t5(self) -> Callable[[str], list[int]]:
        from transformers import T5TokenizerFast

        return _load(T5TokenizerFast, self.files.t5)


def _load(tokenizer_class: Any, folder: Path) -> Callable[[str], list[int]]:
    # A path that is no folder would be taken for a repository's name.
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of tokenizer files at {folder}.")
    tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)

    def ids(text: str) -> list[int]:
        # verbose would warn of prompts longer than the encoder takes at once, which are cut into chunks here.
        return tokenizer(text, verbose=False)["input_ids"]

    return ids


def _encodable(text: str) -> str:
    """`text` with surrogates joined to the characters they stand for, and lone ones, which JSON can carry, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
