"""An accelerator's options at both ends, for each technique."""

from __future__ import annotations

TECHNIQUES = ["fb", "tea", "db"]
NEVER = [
    {"fbCache": True, "fbCacheThreshold": 1.0},
    {"teaCache": True, "teaCacheDistance": 0.0},
    {"dbCache": True, "dbCacheThreshold": 1.0},
]
ALWAYS = [
    {"fbCache": True, "fbCacheThreshold": 0.0},
    {"teaCache": True, "teaCacheDistance": 1.0},
    {"dbCache": True, "dbCacheThreshold": 0.0},
]
