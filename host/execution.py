"""The run that a node is executed in."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context


def prompt_id() -> str | None:
    """The id under which ComfyUI queued the graph whose node is being executed; None outside of a run."""
    context = get_executing_context()
    return context.prompt_id if context is not None else None
