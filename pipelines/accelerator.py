"""The accelerator of a run: from its options to a cache for each canvas, and what the caches did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..caching import (
    CacheOptions,
    CacheRun,
    Calibration,
    Technique,
    Trace,
    calibration_of,
    limit_of,
    plots,
    weights_hash,
)
from .features import Account
from .windows import window

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .request import AcceleratorOptions
    from .samplers import Scheduler

TENSORS = 3
"""Tensors of hidden states that a cache takes at most: two tails, and what is kept of two signals."""

NAMES: dict[Technique, str] = {"fb": "First Block Cache", "tea": "TeaCache", "db": "DB Cache"}


def technique(options: AcceleratorOptions) -> Technique | None:
    """The one that is on; rules.py refuses more than one."""
    if options.fb_cache:
        return "fb"
    if options.tea_cache:
        return "tea"
    return "db" if options.db_cache else None


def eagerness(options: AcceleratorOptions) -> float:
    """How much the technique that is on may reuse, from 0 (never) to 1 (whatever the bounds let it).

    The API's thresholds go the other way for First Block Cache and DB Cache: lower reuses more.
    """
    if options.tea_cache:
        return options.tea_cache_distance
    return 1 - (options.fb_cache_threshold if options.fb_cache else options.db_cache_threshold)


class Sampling(Protocol):
    """What of a sampler matters to a cache."""

    @property
    def name(self) -> str: ...

    @property
    def evaluations(self) -> int:
        """How often it evaluates a step at most."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether it adds noise."""
        ...


class Accelerator:
    """The caches of one request, under one scheduler. `calibrations` is the folder of the user's own."""

    def __init__(self, options: AcceleratorOptions, scheduler: Scheduler, calibrations: Path | None = None):
        self._options = options
        self._calibrations = calibrations
        self._scheduler = scheduler
        self._technique = technique(options)
        self._runs: list[tuple[CacheOptions, Trace]] = []
        self._calibration: Calibration | None = None

    def activation_bytes(self, tokens: int) -> int:
        """Memory that a cache needs, where one tensor of hidden states has `tokens` bytes."""
        return 0 if self._technique is None else TENSORS * tokens

    @contextmanager
    def running(
        self, transformer: torch.nn.Module, sigmas: Sequence[float], device: torch.device
    ) -> Iterator[CacheRun | None]:
        """The cache of one canvas, sampled along `sigmas`: new, and freed at the end. A run that ended well counts in
        the account. None where no technique is on.
        """
        if self._technique is None:
            yield None
            return
        options = self._cache_options(transformer, len(sigmas) - 1)
        run = CacheRun(
            options,
            sigmas,
            device,
            evaluations=self._scheduler.evaluations,
            stochastic=self._scheduler.stochastic,
        )
        try:
            yield run
            self._runs.append((options, run.trace))
        finally:
            run.close()

    def accounts(self) -> list[Account]:
        """What was decided about each step of each canvas."""
        if self._technique is None:
            line = "accelerator: fbCache, teaCache and dbCache are all off, so every step was computed"
            return [Account("acceleratorOptions", (line,), {"technique": None, "runs": []}, (line,))]
        data = {
            "technique": self._technique,
            "calibration": None if self._calibration is None else self._calibration.name,
            "calibrated": self._calibration is not None and self._calibration.measured,
            "runs": [_as_data(options, trace) for options, trace in self._runs],
        }
        lines = [line for number in range(len(self._runs)) for line in self._lines(number)]
        told = (note for options, trace in self._runs for note in notes(options, trace, self._calibration))
        return [Account("acceleratorOptions", tuple(lines), data, tuple(dict.fromkeys(told)))]

    @property
    def preview(self) -> torch.Tensor | None:
        """The decisions of all canvases over their steps, one plot below the other, [height, width, 3]; None where
        nothing was decided.
        """
        return plots([trace for _, trace in self._runs]) if self._runs else None

    def _cache_options(self, transformer: torch.nn.Module, steps: int) -> CacheOptions:
        if self._calibration is None:
            self._calibration = calibration_of(weights_hash(transformer), computing(transformer), self._calibrations)
        return cache_options(self._options, self._calibration, steps)

    def _lines(self, number: int) -> Iterator[str]:
        options, trace = self._runs[number]
        canvas = f", canvas {number + 1}" if len(self._runs) > 1 else ""
        return lines(options, trace, self._calibration, self._scheduler, canvas)


def computing(transformer: torch.nn.Module) -> str:
    """The dtype that a transformer of ours computes in, such as "bfloat16". Its first layer is never stored narrower
    than that; others may be.
    """
    return str(transformer.pos_embed.proj.weight.dtype).removeprefix("torch.")


def cache_options(options: AcceleratorOptions, calibration: Calibration, steps: int) -> CacheOptions:
    """What a run of `steps` executed steps is told, on a model of this calibration; one technique is on."""
    chosen = technique(options)
    # The API's defaults are 0.25 and 0.5: each means the same error.
    usual = eagerness(type(options)(**{f"{chosen}_cache": True}))
    return CacheOptions(
        chosen,
        limit_of(eagerness(options), calibration.scales[chosen], usual),
        window(
            steps,
            options.cache_start_step,
            options.cache_end_step,
            options.cache_start_step_percentage,
            options.cache_end_step_percentage,
        ),
        options.cache_max_consecutive_steps,
        options.db_cache_skip_interval if options.db_cache else None,
    )


def lines(
    options: CacheOptions, trace: Trace, calibration: Calibration, sampler: Sampling, canvas: str = ""
) -> Iterator[str]:
    """What one run's cache did, for people."""
    yield f"{NAMES[options.technique]}{canvas}: {summary(trace)}  {trace.compact}"
    reasons = ", ".join(f"{reason} {count}" for reason, count in trace.reasons().items())
    yield f"computed because of: {reasons}; at most {trace.longest} reused in a row"
    if trace.count("reused"):
        yield (
            f"about {trace.saved_ms / 1000:.2f} s saved: {trace.mean_ms('computed'):.1f} ms a computed evaluation, "
            f"{trace.mean_ms('reused'):.1f} ms a reused one; caches of {trace.cache_bytes / 2**20:.1f} MiB"
        )
    yield from notes(options, trace, calibration)
    if sampler.evaluations > 1 or sampler.stochastic:
        why = "adds noise" if sampler.stochastic else "evaluates steps twice"
        yield f"{sampler.name} {why}, so work is reused as it was, without a forecast"
    if calibration.note:
        yield calibration.note


def notes(options: CacheOptions, trace: Trace, calibration: Calibration) -> Iterator[str]:
    """What of it a person should know who does not ask."""
    if not options.window:
        yield f"none of the {len(trace.steps)} executed steps begins in the window, so nothing could be reused"
    if not calibration.measured:
        yield "the limits of error were not calibrated for this model; SD3 Calibrate does that"


def summary(trace: Trace) -> str:
    """How many steps were treated in which way. Steps in which only the conditional branch is computed lost to reuse on
    sd3-nano (57 dB where First Block Cache has 64 for less), so there are none of them.
    """
    return f"{trace.count('computed')} computed, 0 conditional-only, {trace.count('reused')} reused"


def _as_data(options: CacheOptions, trace: Trace) -> dict[str, Any]:
    return {
        "computed": trace.count("computed"),
        "conditionalOnly": 0,
        "reused": trace.count("reused"),
        "trace": trace.compact,
        "reasons": trace.reasons(),
        "longestRun": trace.longest,
        "window": [options.window.start, options.window.stop],
        "computedMs": trace.mean_ms("computed"),
        "reusedMs": trace.mean_ms("reused"),
        "savedMs": trace.saved_ms,
        "cacheBytes": trace.cache_bytes,
        "steps": [row.as_data() for row in trace.rows],
    }
