"""API keys: made here, kept as hashes, and told once."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path

from .files import write

PREFIX = "sd3local-"
BYTES = 32


class KeyFile:
    """The hashes of the keys that let clients in. A key has 256 random bits, so one SHA-256 of it can't be searched."""

    def __init__(self, file: Path):
        self._file = file

    def hashes(self) -> list[str]:
        """Raises ValueError where the file holds anything else: a broken file lets nobody in."""
        try:
            written = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        if not isinstance(written, list) or not all(isinstance(one, str) for one in written):
            raise ValueError(f"{self._file.name} holds no keys")
        return written

    def make(self) -> str:
        """A new key, which is told only now."""
        key = PREFIX + secrets.token_urlsafe(BYTES)
        write(self._file, json.dumps([*self.hashes(), _hash(key)], indent=1).encode())
        return key

    def revoke_all(self) -> None:
        self._file.unlink(missing_ok=True)

    def admits(self, key: str | None) -> bool:
        """Whether a client with this key may come in; any may where no key was ever made."""
        hashes = self.hashes()
        if not hashes:
            return True
        given = _hash(key or "")
        return any([hmac.compare_digest(given, one) for one in hashes])


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
