"""Conditioning of prompts that were asked for before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from .conditioning import Conditioning


class ConditioningCache:
    """The `capacity` most recently used conditionings of one set of encoders.

    About 2.5 MB for a short prompt of a published model. `variant` tells weights that are not the encoders' own (a
    LoRA's) from them and from each other.
    """

    def __init__(self, capacity: int = 32):
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[tuple[str, int, Hashable], Conditioning] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, prompt: str, clip_skip: int, variant: Hashable = None) -> Conditioning | None:
        """The conditioning of this prompt, if it is still held; counts a hit or a miss."""
        key = (prompt, clip_skip, variant)
        if key not in self._entries:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, prompt: str, clip_skip: int, conditioning: Conditioning, variant: Hashable = None) -> None:
        """Holds a conditioning, and lets the least recently used go where that is one too many."""
        key = (prompt, clip_skip, variant)
        self._entries[key] = conditioning
        self._entries.move_to_end(key)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Lets every conditioning go; the counts stay."""
        self._entries.clear()
