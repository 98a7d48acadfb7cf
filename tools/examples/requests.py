"""The requests that the hosted API shows as its examples, each as a workflow for SD3 Medium."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.pack import ROOT

from .editor import Graph, prefix

FOLDER = ROOT / "tests" / "data" / "examples"
CHECKPOINT = "sd3_medium_incl_clips_t5xxlfp8.safetensors"


def title(file: Path) -> str:
    return f"SD3 request - {file.stem.replace('-', ' ')}"


REQUESTS: dict[str, Mapping[str, Any]] = {
    title(file): json.loads(file.read_text("utf-8"))["request"] for file in sorted(FOLDER.glob("*.json"))
}
"""By the title of the workflow."""


def request(graph: Graph, name: str) -> None:
    """The request called `name` as a graph."""
    given = REQUESTS[name]
    graph.note = (
        "One of the four requests that the hosted API shows as its examples: the same prompt, size, seed, steps and "
        f"CFG scale, on your own GPU.\n\n**It needs** an SD3 checkpoint: put *{CHECKPOINT}* into ComfyUI's folder "
        "*models/checkpoints*, or choose another one in **SD3 Model**.\n\n**Try** another seed, or fewer steps with "
        "an SD3 Accelerator linked to the sampler."
    )
    model = graph.add("SD3LocalModel", model=CHECKPOINT)
    prompt = graph.add("SD3LocalPrompt", positivePrompt=given["positivePrompt"])
    settings = {key: given[key] for key in ("width", "height", "seed", "steps", "CFGScale")}
    painted = graph.add("SD3LocalSampler", model=model[0], prompt=prompt[0], **settings)
    graph.add("SaveImage", images=painted[0], filename_prefix=prefix(name))
    graph.add("PreviewAny", "Report", source=painted[3])
