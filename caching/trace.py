"""What a cache run did, evaluation by evaluation, and the figures that come of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Action = Literal["computed", "reused"]
Reason = Literal[
    "off", "first", "last", "window", "jump", "change", "shape", "maximum", "interval", "threshold", "nan", "pair"
]
LETTERS: dict[Action, str] = {"computed": "C", "reused": "r"}
STEPS_A_GROUP = 4


@dataclass
class Row:
    """One evaluation. `error` is what reuse would have added, or added, `total` that of the whole row of reused steps;
    None where nothing was measured. `limit` is what `total` is compared with. `run` counts the steps reused in a row.
    """

    step: int
    sigma: float
    corrects: bool = False
    action: Action = "computed"
    reason: Reason = "threshold"
    error: float | None = None
    total: float | None = None
    limit: float = math.inf
    run: int = 0
    ms: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """As JSON types, which have no infinity and no NaN."""
        return {
            "step": self.step,
            "sigma": round(self.sigma, 6),
            "evaluation": "corrector" if self.corrects else "predictor",
            "action": self.action,
            "reason": self.reason,
            "error": _finite(self.error),
            "total": _finite(self.total),
            "limit": _finite(self.limit),
            "run": self.run,
            "ms": round(self.ms, 3),
        }


def _finite(value: float | None) -> float | None:
    return round(value, 6) if value is not None and math.isfinite(value) else None


@dataclass
class Trace:
    """The rows of one run, in the order of its evaluations."""

    device: torch.device
    rows: list[Row] = field(default_factory=list)
    cache_bytes: int = 0
    """The most that lay in the caches at a time."""
    _pending: list[tuple[Row, Callable[[], float]]] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[Callable[[Row], None]]:
        """Takes down the row that this context gives, and counts its time to it: passes of one evaluation that are run
        apart give the same row.
        """
        stop = _stopwatch(self.device)
        yield self._note
        self._pending.append((self.rows[-1], stop()))

    def _note(self, row: Row) -> None:
        if not self.rows or self.rows[-1] is not row:
            self.rows.append(row)

    def holds(self, size: int) -> None:
        """So many bytes lie in the caches now."""
        self.cache_bytes = max(self.cache_bytes, size)

    def settle(self) -> None:
        """Reads the times, once the run is over: before, each reading would wait for the device."""
        for row, milliseconds in self._pending:
            row.ms += milliseconds()
        self._pending.clear()

    @property
    def steps(self) -> list[Row]:
        """One row a step: what was decided about it."""
        return [row for row in self.rows if not row.corrects]

    def count(self, action: Action) -> int:
        return sum(row.action == action for row in self.steps)

    @property
    def compact(self) -> str:
        """A letter a step, in groups of four: C computed, r reused."""
        letters = "".join(LETTERS[row.action] for row in self.steps)
        return ".".join(letters[at : at + STEPS_A_GROUP] for at in range(0, len(letters), STEPS_A_GROUP))

    def reasons(self) -> dict[str, int]:
        """How many steps were computed for each reason."""
        counted: dict[str, int] = {}
        for row in self.steps:
            if row.action == "computed":
                counted[row.reason] = counted.get(row.reason, 0) + 1
        return counted

    @property
    def longest(self) -> int:
        """The most steps that were reused in a row."""
        return max((row.run for row in self.steps), default=0)

    def mean_ms(self, action: Action) -> float | None:
        """What an evaluation of this kind took on average. The first of a run is left out where there are others: it
        often pays for memory and kernels that the others find ready.
        """
        of_kind = [row.ms for row in self.rows if row.action == action]
        warm = of_kind[1:] if action == "computed" and len(of_kind) > 1 else of_kind
        return sum(warm) / len(warm) if warm else None

    @property
    def saved_ms(self) -> float:
        """An estimate: what the reused evaluations would have taken as computed ones, less what they took."""
        full = self.mean_ms("computed")
        if full is None:
            return 0.0
        return sum(full - row.ms for row in self.rows if row.action == "reused")


def _stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Starts now; called, it stops, and gives a function that reads the milliseconds."""
    if device.type != "cuda":
        started = time.perf_counter()

        def stop() -> Callable[[], float]:
            took = 1000 * (time.perf_counter() - started)
            return lambda: took

        return stop
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()

    def mark() -> Callable[[], float]:
        end.record()

        def read() -> float:
            end.synchronize()
            return begin.elapsed_time(end)

        return read

    return mark
