"""Prompts of the pack's nodes, as a client posts them to /prompt."""

from __future__ import annotations

from typing import Any

MODEL = {
    "model": "sd3-nano",
    "vae": "from model",
    "textEncoder1": "from model",
    "textEncoder2": "from model",
    "textEncoder3": "from model",
    "dtype": "auto",
}
PROMPT = {"positivePrompt": "a red circle on the left, blue background", "negativePrompt": "", "clipSkip": -1}
SAMPLER = {
    "width": 128,
    "height": 128,
    "seed": 7,
    "steps": 4,
    "scheduler": "Default",
    "CFGScale": 5.0,
    "numberResults": 1,
}
NODES = {"SD3LocalModel": ("1", MODEL), "SD3LocalPrompt": ("2", PROMPT), "SD3LocalSampler": ("3", SAMPLER)}

Prompt = dict[str, dict[str, Any]]


def text_to_image(**inputs: Any) -> Prompt:
    """Model, prompt and sampler, whose pictures (node 4), latents (5) and report (6) ComfyUI's own nodes take.

    `inputs` replace a node's own: the node is found by the input's name, and `model` is SD3LocalModel's.
    """
    graph: Prompt = {}
    left = dict(inputs)
    for name, (key, defaults) in NODES.items():
        graph[key] = {
            "class_type": name,
            "inputs": {field: left.pop(field, default) for field, default in defaults.items()},
        }
    assert not left, left
    graph["3"]["inputs"] |= {"model": ["1", 0], "prompt": ["2", 0]}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "test"}}
    graph["5"] = {"class_type": "SaveLatent", "inputs": {"samples": ["3", 1], "filename_prefix": "test"}}
    graph["6"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 3]}}
    return graph


def with_seed_image(graph: Prompt, picture: str, **inputs: Any) -> Prompt:
    """The graph with ComfyUI's Load Image (node 10) as seed image of SD3LocalInputs (node 11).

    `picture` lies in ComfyUI's input folder; where it has transparency, that is the mask. `inputs` are SD3LocalInputs'
    own.
    """
    masked = inputs.pop("masked", True)
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["11"] = {
        "class_type": "SD3LocalInputs",
        "inputs": {"seedImage": ["10", 0], "strength": 0.8, "maskMargin": -1, **inputs},
    }
    if masked:
        graph["11"]["inputs"]["maskImage"] = ["10", 1]
    graph["3"]["inputs"]["inputs"] = ["11", 0]
    return graph
