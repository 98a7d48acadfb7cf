"""Files that are there in whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PART = ".part"
"""What the name of a file ends in while it is written; after a crash such a file is no one's."""


def write(path: Path, content: bytes) -> None:
    """Writes or replaces a file, and returns when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own name, since two may write the same file at once.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Removes what a crash left half-written."""
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)
