"""The types that the pack's nodes hand to each other, and their place in ComfyUI's menu."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

CATEGORY = "SD3 Local"

Model = io.Custom("SD3_MODEL")
Prompt = io.Custom("SD3_PROMPT")
Result = io.Custom("SD3_RESULT")


@dataclass(frozen=True)
class PromptSpec:
    """What SD3LocalPrompt says: fields of the request, by the API's names, without those that are not set."""

    fields: tuple[tuple[str, str | int], ...]
