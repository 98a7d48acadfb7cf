"""The three engines in this process, each painting the same picture of a seed from the same weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.latents import shape, to_vae
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.samplers import initial_noise

from tests.engines import request

OURS, DIFFUSERS, COMFYUI = "SD3 Local", "diffusers", "ComfyUI"


@dataclass(frozen=True)
class Task:
    """What to paint: Euler's method on ComfyUI's schedule "simple", which all three engines have."""

    width: int
    height: int
    steps: int
    guidance: float = 5.0
    positive: str = "a red circle on the left, blue background"
    negative: str = "green"


@dataclass(frozen=True)
class Shot:
    """One picture: seconds of sampling, seconds in all, and its latent in the VAE's space, float32 on the CPU."""

    sampling: float
    total: float
    latent: torch.Tensor


class Engine(Protocol):
    name: str

    def paint(self, seed: int) -> Shot: ...


class Ours:
    """The pack's engine. All that is not decoding counts as sampling."""

    name = OURS

    def __init__(self, model: Model, task: Task):
        self._model = model
        self._request = request(
            width=task.width,
            height=task.height,
            steps=task.steps,
            CFGScale=task.guidance,
            positivePrompt=task.positive,
            negativePrompt=task.negative,
            scheduler="DDIM",
        )

    def paint(self, seed: int) -> Shot:
        started = time.perf_counter()
        result = generate(self._request.model_copy(update={"seed": seed}), self._model, Unwatched())
        total = time.perf_counter() - started
        return Shot(total - result.report.seconds["decode"], total, result.pictures[0].latent[None])


class Diffusers:
    """The stock pipeline on copies of the model's modules. It is given the conditioning and the noise as tensors."""

    name = DIFFUSERS

    def __init__(self, model: Model, task: Task):
        from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

        transformer = copy.deepcopy(model.transformer().module)
        self._pipeline = StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=copy.deepcopy(model.vae().module),
            **dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        positive, negative = model.encode([task.positive, task.negative], 0, Unwatched())
        place = {"device": transformer.device, "dtype": transformer.dtype}
        self._noise_shape = (1, *shape(task.width, task.height))
        self._arguments: dict[str, Any] = {
            "prompt_embeds": positive.context.to(**place),
            "pooled_prompt_embeds": positive.pooled.to(**place),
            "negative_prompt_embeds": negative.context.to(**place),
            "negative_pooled_prompt_embeds": negative.pooled.to(**place),
            "width": task.width,
            "height": task.height,
            "guidance_scale": task.guidance,
            "num_inference_steps": task.steps,
            # "simple" before the shift, which the scheduler applies.
            "sigmas": [(1000 - int(step * (1000 / task.steps))) / 1000 for step in range(task.steps)],
            "output_type": "latent",
        }

    @torch.inference_mode()
    def paint(self, seed: int) -> Shot:
        pipeline, vae = self._pipeline, self._pipeline.vae
        started = time.perf_counter()
        noise = initial_noise(seed, self._noise_shape).to(pipeline.transformer.dtype)
        latents = pipeline(latents=noise, **self._arguments).images
        kept = latents.float().cpu()
        sampled = time.perf_counter()
        # What the pipeline does for any other `output_type`.
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        pipeline.image_processor.postprocess(decoded, output_type="np")
        return Shot(sampled - started, time.perf_counter() - started, to_vae(kept))


class ComfyUI:
    """ComfyUI's own nodes: CheckpointLoaderSimple, CLIPTextEncode, KSampler, VAEDecode. `comfy` has been imported.

    `checkpoint` is a file's name in its folder `checkpoints`.
    """

    name = COMFYUI

    @torch.inference_mode()
    def __init__(self, checkpoint: str, task: Task):
        import comfy.utils

        import nodes

        comfy.utils.set_progress_bar_enabled(False)
        self._model, clip, self._vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint)
        encode = nodes.CLIPTextEncode().encode
        self._conditioning = [encode(clip, text)[0] for text in (task.positive, task.negative)]
        self._sample = nodes.KSampler().sample
        self._decode = nodes.VAEDecode().decode
        self._task = task

    @torch.inference_mode()
    def paint(self, seed: int) -> Shot:
        task = self._task
        started = time.perf_counter()
        empty = {"samples": torch.zeros(1, *shape(task.width, task.height))}
        sampled_latent = self._sample(
            self._model, seed, task.steps, task.guidance, "euler", "simple", *self._conditioning, empty
        )[0]
        kept = sampled_latent["samples"].float().cpu()
        sampled = time.perf_counter()
        self._decode(self._vae, sampled_latent)[0].cpu()
        return Shot(sampled - started, time.perf_counter() - started, kept)


def race(engines: Sequence[Engine], rounds: int, told: Callable[[str], None]) -> dict[str, list[Shot]]:
    """Engine -> a picture for each seed, one engine after the other for every seed. The first seed is a warm-up."""
    shots: dict[str, list[Shot]] = {engine.name: [] for engine in engines}
    for seed in range(rounds + 1):
        for engine in engines:
            shots[engine.name].append(engine.paint(seed))
            told(f"{engine.name}, {f'round {seed}' if seed else 'warm-up'}: {shots[engine.name][-1].total:.2f} s")
    return shots


def difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest relative difference |ours - theirs| / |theirs| (2-norms) of two engines' latents, seed by seed."""
    return max(((one - other).norm() / other.norm()).item() for one, other in zip(ours, theirs, strict=True))
