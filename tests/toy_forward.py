"""A transformer taken apart whose every part is known in closed form, for tests of what caches decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from sd3_local.caching import CacheRun

Curve = Callable[[float], "float | Sequence[float]"]
"""A quantity over sigma: one number, or one a sample."""

TOKENS, WIDTH = 32, 8
EMBEDDED = 10.0


@dataclass
class Toy:
    """At `sigma` the first block adds `block(sigma)` to the image stream, all others add `tail(sigma)`.

    `called` takes down the parts that are computed.
    """

    sigma: float
    block: Curve
    tail: Curve
    samples: int = 1
    tokens: int = TOKENS
    called: list[str] = field(default_factory=list)

    def embed(self) -> torch.Tensor:
        self.called.append("embed")
        return self._level(EMBEDDED)

    def modulated(self) -> torch.Tensor:
        return self._level(self.block(self.sigma))

    def first(self) -> torch.Tensor:
        self.called.append("first")
        return self.embed_level + self._level(self.block(self.sigma))

    def rest(self) -> torch.Tensor:
        self.called.append("rest")
        return self.embed_level + self._level(self.block(self.sigma)) + self._level(self.tail(self.sigma))

    def attended(self) -> torch.Tensor:
        return self.rest()

    def feed(self, hidden: torch.Tensor) -> torch.Tensor:
        self.called.append("feed")
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    @property
    def embed_level(self) -> torch.Tensor:
        return self._level(EMBEDDED)

    @property
    def truth(self) -> torch.Tensor:
        """What all of it computed gives."""
        return self.embed_level + self._level(self.block(self.sigma)) + self._level(self.tail(self.sigma))

    def _level(self, value: float | Sequence[float]) -> torch.Tensor:
        level = torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
        return level.expand(self.samples, self.tokens, WIDTH).clone()


def evenly(steps: int) -> list[float]:
    return [1 - step / steps for step in range(steps)] + [0.0]


def along(run: CacheRun, sigmas: Sequence[float], make: Callable[[float], Toy | Mapping[str, Toy]]) -> list[Toy]:
    """Evaluates `run` at all `sigmas` but the last; gives the passes in their order."""
    passes: list[Toy] = []
    for sigma in sigmas[:-1]:
        made = make(sigma)
        made = made if isinstance(made, Mapping) else {"all": made}
        run.evaluate(sigma, made)
        passes += made.values()
    return passes
