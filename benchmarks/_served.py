"""A whole graph in a real ComfyUI over HTTP: the pack's nodes, and ComfyUI's own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from safetensors.torch import load

from tests.comfy_host import ComfyHost, Listener
from tests.graphs import Prompt, text_to_image

from ._engines import COMFYUI, OURS, Task

TIMEOUT = 3600.0


@dataclass
class Served:
    """What ComfyUI told of one engine's graphs: seconds of a step and of the whole prompt, by round, and latents."""

    steps: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    latents: list[torch.Tensor] = field(default_factory=list)


def race(host: ComfyHost, checkpoint: str, task: Task, rounds: int, told: Callable[[str], None]) -> dict[str, Served]:
    """Engine -> its runs on `host`, one engine after the other for every seed.

    The first seed is a warm-up, which also saves the latents; loading and text stay in ComfyUI's cache after it. A
    prompt's time is that between ComfyUI's own events execution_start and execution_success; a step's is the median
    time between its progress messages, so the first step, before which nothing is told, does not count.
    """
    served = {OURS: Served(), COMFYUI: Served()}
    graphs = {OURS: _ours, COMFYUI: _native}
    for seed in range(rounds + 1):
        for name, graph in graphs.items():
            prompt = graph(checkpoint, task, seed)
            if seed:
                del prompt["5"]
            _run(host, prompt, served[name], warm=not seed)
            if seed:
                told(f"{name} served, round {seed}: {served[name].totals[-1]:.2f} s")
    return served


def _run(host: ComfyHost, prompt: Prompt, served: Served, warm: bool) -> None:
    ticks: list[float] = []

    def tick(event: Mapping[str, Any]) -> None:
        if event["type"] == "progress" and event["data"]["value"]:
            ticks.append(time.perf_counter())

    with Listener(host, tick) as heard:
        run = host.run(prompt, TIMEOUT, heard.client_id)
        if run.status != "success":
            raise RuntimeError(f"ComfyUI could not run the graph: {run.error}")
        heard.wait_for(lambda: bool(heard.of("execution_success")))
    if warm:
        saved = run.outputs["5"]["latents"][0]
        served.latents.append(load(host.view(saved))["latent_tensor"].float())
        return
    served.steps.append(statistics.median(after - before for before, after in pairwise(ticks)))
    at = {event: data["timestamp"] / 1000 for event, data in run.events if "timestamp" in data}
    served.totals.append(at["execution_success"] - at["execution_start"])


def _ours(checkpoint: str, task: Task, seed: int) -> Prompt:
    graph = text_to_image(
        model=checkpoint,
        positivePrompt=task.positive,
        negativePrompt=task.negative,
        width=task.width,
        height=task.height,
        steps=task.steps,
        CFGScale=task.guidance,
        scheduler="DDIM",
        seed=seed,
    )
    return {key: graph[key] for key in ("1", "2", "3", "5")} | {"4": _shown(["3", 0])}


def _native(checkpoint: str, task: Task, seed: int) -> Prompt:
    sampler = {
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["3", 0],
        "latent_image": ["7", 0],
        "seed": seed,
        "steps": task.steps,
        "cfg": task.guidance,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": _node("CLIPTextEncode", clip=["1", 1], text=task.positive),
        "3": _node("CLIPTextEncode", clip=["1", 1], text=task.negative),
        "7": _node("EmptySD3LatentImage", width=task.width, height=task.height, batch_size=1),
        "8": _node("KSampler", **sampler),
        "9": _node("VAEDecode", samples=["8", 0], vae=["1", 2]),
        "4": _shown(["9", 0]),
        "5": _node("SaveLatent", samples=["8", 0], filename_prefix="native"),
    }


def _shown(images: list[Any]) -> dict[str, Any]:
    return _node("PreviewImage", images=images)


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}
