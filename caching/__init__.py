"""Step caches for SD3's transformer: when a step is reused, and what is reused.

A `CacheRun` lives as long as one sampling run. It is handed each evaluation's forward pass in parts (`Forward`),
decides, and gives the output; its `trace` tells what was done. Nothing is patched, and nothing stays behind.
"""

from .calibration import (
    SHIPPED,
    Calibration,
    Measured,
    Results,
    Settings,
    Techniques,
    calibration_of,
    read_results,
    results_path,
    weights_hash,
)
from .fitting import Fit, fit
from .forward import DiffusersForward, Forward
from .options import CacheOptions, Technique, Tuning, limit_of
from .plot import plot, plots
from .recorder import Pair, Recorder
from .run import CacheRun, Evaluation, Seen
from .trace import Row, Trace

__all__ = [
    "SHIPPED",
    "CacheOptions",
    "CacheRun",
    "Calibration",
    "DiffusersForward",
    "Evaluation",
    "Fit",
    "Forward",
    "Measured",
    "Pair",
    "Recorder",
    "Results",
    "Row",
    "Seen",
    "Settings",
    "Technique",
    "Techniques",
    "Trace",
    "Tuning",
    "calibration_of",
    "fit",
    "limit_of",
    "plot",
    "plots",
    "read_results",
    "results_path",
    "weights_hash",
]
