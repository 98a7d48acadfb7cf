"""Windows of steps, given in steps or in percent."""

from __future__ import annotations

import math


def window(
    steps: int,
    start_step: int | None,
    end_step: int | None,
    start_percentage: int | None,
    end_percentage: int | None,
) -> range:
    """The steps, of `steps` that are executed, that lie in a window; what is None does not bound it.

    A percentage is a share of the executed steps, and a step belongs to the window in which it begins: so windows that
    meet share no step and leave none out. Where `steps` is small, no step may begin in a window.
    """
    start, end = start_step or 0, steps if end_step is None else end_step
    if start_percentage is not None:
        start = math.ceil(start_percentage * steps / 100)
    if end_percentage is not None:
        end = math.ceil(end_percentage * steps / 100)
    return range(min(start, steps), max(min(start, steps), min(end, steps)))
