"""Measures on a model what the errors of the accelerators' signals mean for its velocities, in runs that compute every
step, and writes the file of results that later runs find.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..caching import (
    SHIPPED,
    Measured,
    Pair,
    Recorder,
    Results,
    Settings,
    Techniques,
    fit,
    read_results,
    results_path,
    weights_hash,
)
from .accelerator import computing
from .denoise import Guidance
from .errors import RequestError
from .generate import NO_MATERIALS, check
from .monitor import Monitor
from .painting import Painting, paint
from .parse import parse
from .samplers import sigmas

if TYPE_CHECKING:
    import torch

    from .model import Model
    from .samplers import Scheduler

ROWS = 3
"""Steps reused in a row that are played at most: 1, 2 and 3 in turn, prompt by prompt."""

UNKNOWN_SIDE = 1024

LEAST_STEPS = 12
"""Steps of a run in which the longest row is played more than once."""

TENSORS = 9
"""Tensors of hidden states that a recorder takes at most: three techniques with two tails and two sparse signals each,
and the parts of the step at hand.
"""

PROMPTS = (
    "a portrait photo of an old fisherman with a grey beard, soft window light",
    "a red bicycle leaning against a white brick wall",
    "an oil painting of a stormy sea with a small sailing boat",
    "a bowl of ramen with egg and spring onions, seen from above",
    "a neon sign that says OPEN above a narrow shop at night",
    "a snowy mountain range at sunrise, wide landscape",
    "a golden retriever puppy running through autumn leaves",
    "an isometric drawing of a tiny living room with plants",
    "a futuristic city with flying cars in the rain",
    "a macro photo of a dragonfly on a blade of grass",
    "a flat vector logo of a fox, orange on white",
    "a crowded street market with colourful fabrics",
    "a glass chess set on a wooden table, studio light",
    "a watercolour of a lighthouse among wild flowers",
    "two astronauts playing cards on the moon",
    "an empty swimming pool, minimalist architecture, hard shadows",
    "a steam locomotive crossing a stone viaduct in fog",
    "a pencil sketch of a sleeping cat",
    "a woman in a blue dress dancing on a stage, motion blur",
    "a shelf of old books with a handwritten label that reads HISTORY",
    "a coral reef full of tropical fish",
    "a medieval knight on a horse, cinematic, golden hour",
    "a plate of colourful macarons on marble",
    "an abstract pattern of overlapping circles in green and purple",
)
"""Pictures of many kinds: people, animals, things, places, text, drawings, the crowded and the empty."""


@dataclass(frozen=True)
class Calibrated:
    """How a calibration ended. `resumed` prompts were measured before; `fresh` is False where nothing had to be."""

    path: Path
    results: Results
    resumed: int = 0
    fresh: bool = True

    def __str__(self) -> str:
        results = self.results
        lines = [f"{results.name} in {results.dtype} is calibrated: {self.path}"]
        if not self.fresh:
            lines = [f"{results.name} in {results.dtype} was calibrated before: {self.path}"]
        if self.resumed:
            lines.append(f"{self.resumed} of {len(results.settings.prompts)} prompts had been measured before")
        for technique, measured in results.techniques:
            lines.append(
                f"{technique}: output error = {measured.factor:.3g} x signal error, from {measured.pairs} steps that "
                f"might have been reused (R^2 {measured.r2:.2f})"
            )
        return "\n".join(lines)


def usual_side(model: Model) -> int:
    """Pixels a side of the pictures to measure in where nobody says: what the model was trained for, as far as its
    shape tells.
    """
    return model.plan.native_side or min(UNKNOWN_SIDE, model.plan.max_side)


def calibrate(model: Model, settings: Settings, folder: Path, monitor: Monitor, *, again: bool = False) -> Calibrated:
    """Calibrates a model and writes its file of results into `folder`, the place of the user's own.

    What was measured is kept prompt by prompt, so that a run that was stopped goes on where it was when it is asked for
    with the same settings. A model that has results is not measured `again` where that is not asked for. Raises
    RequestError for settings that can't run and models that nothing can be measured on, and whatever `monitor` raises.
    """
    import torch

    scheduler = _check(model, settings)
    transformer = model.transformer().module
    weights = weights_hash(transformer)
    dtype = computing(transformer)
    path = results_path(folder, weights, dtype)
    known = None if again else _known(folder, weights, dtype)
    if known is not None:
        return known
    partial = _Partial(path.with_suffix(".partial"), settings)
    resumed = len(partial.measured)
    schedule = sigmas(scheduler.schedule, settings.steps)
    with torch.inference_mode():
        for index in range(resumed, len(settings.prompts)):
            prompts = [settings.prompts[index], ""][: 2 if settings.guidance_scale > 1 else 1]
            encoded = model.encode(prompts, 0, monitor)
            row = index % ROWS + 1
            recording = _Recording(row, index // ROWS % (row + 1))
            painting = Painting(
                *settings.sizes[index // ROWS % len(settings.sizes)],
                Guidance(encoded[0], encoded[1] if len(encoded) > 1 else None, settings.guidance_scale),
                scheduler.sampler,
                schedule,
                seed=index,
                first_step=index * settings.steps,
                total_steps=len(settings.prompts) * settings.steps,
                accelerator=recording,
            )
            paint(model, painting, monitor)
            partial.add(recording.pairs)
    try:
        fits = fit(pair for pairs in partial.measured for pair in pairs)
    except ValueError as error:
        raise RequestError(
            "invalidPrompts", f"Nothing to calibrate by: {error}. Use more prompts.", "prompts"
        ) from None
    results = Results(
        name=model.plan.name,
        weights=weights,
        dtype=dtype,
        settings=settings,
        techniques=Techniques(**{technique: Measured(**asdict(one)) for technique, one in fits.items()}),
    )
    _write(path, results.model_dump_json(indent=1) + "\n")
    partial.remove()
    return Calibrated(path, results, resumed)


def _check(model: Model, settings: Settings) -> Scheduler:
    """The scheduler of the runs. Raises RequestError for what can't run."""
    if settings.steps < LEAST_STEPS:
        told = f"steps is {settings.steps}; a calibration needs at least {LEAST_STEPS}."
        raise RequestError("invalidSteps", told, "steps", min=LEAST_STEPS)
    for width, height in settings.sizes:
        request = parse(
            {
                "taskType": "imageInference",
                "taskUUID": str(uuid.uuid4()),
                "model": model.plan.name,
                "positivePrompt": settings.prompts[0],
                "width": width,
                "height": height,
                "steps": settings.steps,
                "CFGScale": settings.guidance_scale,
            }
        )
        scheduler = check(request, model, NO_MATERIALS)
    return scheduler


def _known(folder: Path, weights: str, dtype: str) -> Calibrated | None:
    """The results that runs of this model use now, where someone has measured it."""
    for place in (folder, SHIPPED):
        path = results_path(place, weights, dtype)
        with contextlib.suppress(OSError, ValueError):
            return Calibrated(path, read_results(path, weights, dtype), fresh=False)
    return None


class _Recording:
    """A recorder in an accelerator's place."""

    def __init__(self, row: int, offset: int):
        self.pairs: Sequence[Pair] = ()
        self._row, self._offset = row, offset

    def activation_bytes(self, tokens: int) -> int:
        return TENSORS * tokens

    @contextmanager
    def running(
        self, transformer: torch.nn.Module, sigmas: Sequence[float], device: torch.device
    ) -> Iterator[Recorder]:
        # New for each try: one that runs out of memory is begun again.
        recorder = Recorder(len(sigmas) - 1, self._row, self._offset)
        yield recorder
        self.pairs = recorder.pairs


class _Partial:
    """What has been measured so far, prompt by prompt, in a file beside the results."""

    def __init__(self, path: Path, settings: Settings):
        self._path = path
        self._settings = settings.model_dump(mode="json")
        self.measured: list[Sequence[Pair]] = []
        # Other settings, or a file that is none: begun anew.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["settings"] == self._settings:
                self.measured = [[Pair(str(name), float(x), float(y)) for name, x, y in rows] for rows in kept["pairs"]]

    def add(self, pairs: Sequence[Pair]) -> None:
        self.measured.append(pairs)
        rows = [[[pair.technique, pair.signal, pair.output] for pair in each] for each in self.measured]
        _write(self._path, json.dumps({"settings": self._settings, "pairs": rows}))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """All of it or nothing: whoever is stopped half-way leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
