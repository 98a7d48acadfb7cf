"""Step caches for SD3's transformer: when a step is reused, and what is reused.

A `CacheRun` lives as long as one sampling run. It is handed each evaluation's forward pass in parts (`Forward`),
decides, and gives the output; its `trace` tells what was done. Nothing is patched, and nothing stays behind.
"""

from .calibration import Calibration, calibration_of, weights_hash
from .forward import DiffusersForward, Forward
from .options import CacheOptions, Technique, Tuning, limit_of
from .plot import plot, plots
from .run import CacheRun, Evaluation, Seen
from .trace import Row, Trace

__all__ = [
    "CacheOptions",
    "CacheRun",
    "Calibration",
    "DiffusersForward",
    "Evaluation",
    "Forward",
    "Row",
    "Seen",
    "Technique",
    "Trace",
    "Tuning",
    "calibration_of",
    "limit_of",
    "plot",
    "plots",
    "weights_hash",
]
