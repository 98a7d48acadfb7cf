"""What came of a run, in the few facts that are worth a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .accelerator import NAMES

if TYPE_CHECKING:
    from .generate import Result


def summary(result: Result) -> dict[str, Any]:
    """As JSON types. `steps` are those that were run, of all results, and `reused` those of them that were not
    computed; `speedup` is how many times as many would be computed without the accelerator, None where none was on.
    `unsafe` holds the numbers, from 1, of results that the safety check found unsafe.
    """
    report = result.report
    accelerator = technique(result)
    computed = report.executed - report.reused
    return {
        "width": report.width,
        "height": report.height,
        "steps": report.executed,
        "reused": report.reused,
        "accelerator": accelerator,
        "speedup": report.executed / computed if accelerator is not None and computed else None,
        "seconds": sum(report.seconds.values()),
        "seeds": [str(seed) for seed in report.seeds],
        "unsafe": [number for number, picture in enumerate(result.pictures, 1) if picture.nsfw],
        "notes": list(report.notes),
        "details": str(report),
    }


def technique(result: Result) -> str | None:
    """The name of the accelerator that was on."""
    for account in result.report.accounts:
        if account.data.get("technique") is not None:
            return NAMES[account.data["technique"]]
    return None
