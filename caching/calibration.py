"""What an error of a signal means for a picture: a scale per technique, model by model, from a file of results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .options import Technique

if TYPE_CHECKING:
    import torch

SHIPPED = Path(__file__).parent / "calibrations"

ERROR = 0.08
"""What the API's default threshold means, for every technique and model: the velocities of a row of reused steps may be
off by so much in all, each as a share of its size. It halves what sd3-nano computes under TeaCache.
"""


@dataclass(frozen=True)
class Calibration:
    """The errors of their signals that the techniques may make at the API's default thresholds, for one model.

    `name` tells what it was measured on. `measured` is False for the defaults, which nobody has measured on the model.
    `note` is for whoever reads the report of a run: a file of results that could not be used, and why.
    """

    name: str
    scales: Mapping[Technique, float]
    measured: bool = True
    note: str = ""


DEFAULT_FACTORS: Mapping[Technique, float] = {"fb": 1.1, "tea": 1.5, "db": 0.9}
"""sd3-nano's, for SD3 Medium, SD3.5 Medium, SD3.5 Large and all others until someone measures them."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(_Strict):
    """What was measured of one technique: see Fit."""

    factor: Annotated[float, Field(gt=0, le=1e6)]
    pairs: Annotated[int, Field(gt=0)]
    r2: Annotated[float, Field(le=1)]


class Techniques(_Strict):
    fb: Measured
    tea: Measured
    db: Measured


class Settings(_Strict):
    """The uncached runs that a calibration is measured in: one a prompt, which take turns at the sizes."""

    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    sizes: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    """Width and height in pixels."""
    steps: int
    guidance_scale: float


class Results(_Strict):
    """The file of results of one model."""

    version: Literal[1] = 1
    name: str
    weights: str
    dtype: str
    settings: Settings
    techniques: Techniques

    def calibration(self) -> Calibration:
        return Calibration(self.name, _scales({name: each.factor for name, each in self.techniques}))


def _scales(factors: Mapping[Technique, float]) -> Mapping[Technique, float]:
    return {technique: ERROR / factor for technique, factor in factors.items()}


DEFAULT = Calibration("uncalibrated", _scales(DEFAULT_FACTORS), measured=False)


def weights_hash(transformer: torch.nn.Module) -> str:
    """Tells a model's weights from others': 16 hexadecimal digits of the values of its first and last layers, which no
    two trained models share. Hashing all of them would mean reading the whole file once more.
    """
    import torch

    digest = hashlib.sha256()
    for layer in (transformer.pos_embed.proj, transformer.proj_out):
        digest.update(layer.weight.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def results_path(folder: Path, weights: str, dtype: str) -> Path:
    """Where the results of a model lie in a folder of them."""
    return folder / f"{weights}-{dtype}.json"


def calibration_of(weights: str, dtype: str, folder: Path | None = None) -> Calibration:
    """The calibration of the model whose weights have the hash `weights`, computing in `dtype` (such as "bfloat16").

    It comes from the file `<weights>-<dtype>.json` in `folder`, the user's own; else from the one that the pack ships;
    else it is the uncalibrated default. A file that can't be used is passed over, and the calibration's note says why.
    """
    notes = []
    for place in (folder, SHIPPED):
        path = None if place is None else results_path(place, weights, dtype)
        if path is None or not path.exists():
            continue
        try:
            found = read_results(path, weights, dtype).calibration()
        except (OSError, ValueError) as error:
            notes.append(f"the calibration {path} is ignored: {error}")
            continue
        return replace(found, note="; ".join(notes))
    return replace(DEFAULT, note="; ".join(notes))


def read_results(path: Path, weights: str, dtype: str) -> Results:
    """The results in a file. Raises OSError, or ValueError that says in one line what is wrong with it."""
    try:
        results = Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(": ".join([*(str(part) for part in first["loc"]), first["msg"]])) from None
    if (results.weights, results.dtype) != (weights, dtype):
        raise ValueError(f"it is of other weights, {results.weights} in {results.dtype}")
    return results
