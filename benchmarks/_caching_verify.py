"""Reused steps computed as well: how far from the truth each one was, beside the error that it was let pass for."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from sd3_local.caching import CacheOptions, CacheRun, Row, Technique
from sd3_local.pipelines.samplers import sigmas

from . import _output
from ._caching_methods import Painter, Task
from ._caching_ours import cached_forward, installed

TECHNIQUES: tuple[Technique, ...] = ("fb", "tea", "db")
LIMIT, MOST_IN_A_ROW = 0.25, 5


def verify(painter: Painter, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A row for each reused step of each picture: its measured error, and its true one, as a share of the velocity's
    size, for the velocities of both prompts that the transformer gives.
    """
    return [row for technique in TECHNIQUES for task in tasks for row in _verified(painter, technique, task)]


def _verified(painter: Painter, technique: Technique, task: Task) -> list[dict[str, Any]]:
    options = CacheOptions(technique, LIMIT, range(task.steps), MOST_IN_A_ROW)
    rows: list[dict[str, Any]] = []

    def checked(row: Row, given: torch.Tensor, computed: torch.Tensor) -> None:
        error = ((given - computed).norm() / computed.norm()).item()
        rows.append({"technique": technique, "seed": task.seed, **row.as_data(), "true_error": error})

    painter.paint(task, partial(_checked, options, sigmas("default", task.steps), checked))
    return rows


@contextmanager
def _checked(
    options: CacheOptions, schedule: tuple[float, ...], checked: Any, transformer: torch.nn.Module
) -> Iterator[None]:
    run, whole = CacheRun(options, schedule, transformer.device), transformer.forward
    decided = cached_forward(run, schedule, transformer)

    def forward(**given: Any) -> tuple[torch.Tensor]:
        output = decided(**given)
        row = run.trace.rows[-1]
        if row.action == "reused":
            checked(row, output[0], whole(**given)[0])
        return output

    with installed(forward, run, transformer):
        yield


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints what the techniques' measured errors are worth."""
    found = [(name, [row for row in rows if row["technique"] == name]) for name in TECHNIQUES]
    table = [{"technique": name, "rows": of} for name, of in found if len(of) > 1]
    columns = {
        "technique": lambda row: row["technique"],
        "reused steps": lambda row: str(len(row["rows"])),
        "measured error, median": lambda row: _percent(statistics.median(one["error"] for one in row["rows"])),
        "true error, median": lambda row: _percent(statistics.median(one["true_error"] for one in row["rows"])),
        "largest": lambda row: _percent(max(one["true_error"] for one in row["rows"])),
        "rank correlation": lambda row: f"{_correlation(row['rows']):.2f}",
    }
    print(f"\nReused steps, computed as well (limit {LIMIT:g}, at most {MOST_IN_A_ROW} in a row):\n")
    print(_output.table(table, columns))
    print("\nMeasured: of the technique's signal. True: of the velocity. Both as a share of their size.")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _correlation(rows: Sequence[dict[str, Any]]) -> float:
    """Spearman's, of the measured and the true errors."""
    import numpy as np

    ranks = [np.argsort(np.argsort([row[name] for row in rows])) for name in ("error", "true_error")]
    return float(np.corrcoef(*ranks)[0, 1])
