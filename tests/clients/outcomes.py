"""What the Python programs of this folder share: calls made side by side, and how each ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

PATIENCE = 90.0
"""Seconds for one call; a client that waits in vain would do so for many minutes."""


def told() -> dict[str, Any]:
    """What the test gave on the input."""
    return json.loads(sys.stdin.read())


async def outcomes(calls: Mapping[str, Awaitable[Any]], describe: Callable[[Exception], dict[str, Any]]) -> dict:
    """Each call's result, or its error as `describe` tells it; all calls run at once."""

    async def one(call: Awaitable[Any]) -> dict[str, Any]:
        try:
            return {"result": await asyncio.wait_for(call, PATIENCE)}
        except Exception as error:
            return {"error": {"type": type(error).__name__, "message": str(error), **describe(error)}}

    return dict(zip(calls, await asyncio.gather(*map(one, calls.values())), strict=True))
