"""What an error of a signal means for a picture: a scale per technique, model by model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .options import Technique

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent / "calibrations"


@dataclass(frozen=True)
class Calibration:
    """The errors that the techniques may make half way between never and always, for one model.

    `name` tells what it was measured on. `measured` is False for the defaults, which nobody has measured on the model.
    """

    name: str
    scales: Mapping[Technique, float]
    measured: bool = True


DEFAULT = Calibration("uncalibrated", {"fb": 0.03, "tea": 0.05, "db": 0.03}, measured=False)
"""For SD3 Medium, SD3.5 Medium and SD3.5 Large until someone measures them: what leaves sd3-nano's pictures as they are
at twice the speed, under the API's default thresholds.
"""


def weights_hash(transformer: torch.nn.Module) -> str:
    """Tells a model's weights from others': 16 hexadecimal digits of its first and last layers, which no two trained
    models share and no storage dtype narrows. Hashing all of them would mean reading the whole file once more.
    """
    import torch

    digest = hashlib.sha256()
    for layer in (transformer.pos_embed.proj, transformer.proj_out):
        digest.update(layer.weight.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def calibration_of(weights: str, dtype: str) -> Calibration:
    """The calibration of the model whose weights have the hash `weights`, computing in `dtype` (such as "bfloat16"),
    from the file `<weights>-<dtype>.json`; the uncalibrated default where there is none.
    """
    return _shipped(f"{weights}-{dtype}") or DEFAULT


@cache
def _shipped(key: str) -> Calibration | None:
    path = FOLDER / f"{key}.json"
    if not path.is_file():
        return None
    return Calibration(**json.loads(path.read_text(encoding="utf-8")))
