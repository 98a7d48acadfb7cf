"""Makes the checkout importable as `sd3_local`, the name by which tests know the pack."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.pack import import_pack  # noqa: E402

import_pack()
