"""A request in, pictures out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import latents
from .denoise import Guidance, Velocity, activation_bytes
from .errors import Fault, RequestError
from .model import memory_is_full
from .monitor import Monitor
from .placement import when_full
from .report import Report
from .request import random_seed
from .samplers import NoiseStream, scheduler, sigmas

if TYPE_CHECKING:
    import torch

    from .model import Model
    from .request import ImageInference
    from .samplers import Scheduler


@dataclass(frozen=True)
class Picture:
    """One result of a run."""

    pixels: torch.Tensor
    """[height, width, 3], float32 from 0 to 1, on the CPU."""
    latent: torch.Tensor
    """[16, height / 8, width / 8] in the VAE's own space, float32, on the CPU."""
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of a request; `request` is as it was run, with its seed."""

    request: ImageInference
    pictures: tuple[Picture, ...]
    report: Report


def check(request: ImageInference, model: Model) -> Scheduler:
    """The scheduler of a request that this model can run. Raises RequestError with all that stands against it; loads
    nothing.
    """
    faults: list[Fault] = []
    chosen = None
    try:
        chosen = scheduler(request.effective_scheduler)
    except RequestError as error:
        faults += error.faults
    limit = model.plan.max_side
    for name, side in (("width", request.width), ("height", request.height)):
        if side > limit:
            told = (
                f"{name} is {side}, but {model.plan.name} paints at most {limit} pixels a side: choose a smaller one."
            )
            faults.append(Fault(f"invalid{name.capitalize()}", told, name, {"max": limit}))
    if model.plan.vae is None:
        told = "The model's file has no VAE, which turns latents into pixels: choose one as vae."
        faults.append(Fault("missingVae", told, "vae"))
    if not model.has_text_encoder and (request.positive_prompt or request.effective_negative_prompt):
        told = "The model's file has no text encoder to read the prompt: choose up to three as textEncoder1, 2 and 3."
        faults.append(Fault("missingTextEncoder", told, "textEncoder1"))
    if faults:
        raise RequestError.of(faults)
    assert chosen is not None
    return chosen


def generate(request: ImageInference, model: Model, monitor: Monitor) -> Result:
    """Runs a request whose features this engine has: text to image.

    Each picture has a seed of its own, `request.seed` + i, and is the same whether it is asked for alone or with
    others. Raises RequestError for what can't run, before anything is loaded, and whatever `monitor` raises to stop the
    run.
    """
    import torch

    chosen = check(request, model)
    if request.seed is None:
        request = request.model_copy(update={"seed": random_seed()})
    run = _Run(request, chosen, model, monitor)
    with torch.inference_mode():
        pictures = run.pictures()
    report = Report(
        model=model.plan.name,
        width=request.width,
        height=request.height,
        steps=request.steps,
        scheduler=chosen,
        guidance_scale=request.effective_cfg_scale,
        guided=_is_guided(request),
        seeds=tuple(picture.seed for picture in pictures),
        seconds=run.seconds,
    )
    return Result(request, pictures, report)


def _is_guided(request: ImageInference) -> bool:
    return request.effective_cfg_scale > 1


class _Run:
    """The state of one `generate`."""

    def __init__(self, request: ImageInference, chosen: Scheduler, model: Model, monitor: Monitor):
        self.seconds: dict[str, float] = {"load": 0.0}
        self._request = request
        self._scheduler = chosen
        self._sigmas = sigmas(chosen.schedule, request.steps)
        self._model = model
        self._monitor = monitor

    def pictures(self) -> tuple[Picture, ...]:
        request = self._request
        with self._stage("text"):
            guidance = self._guidance()
        pictures = []
        for index in range(request.number_results):
            seed = request.seed + index
            with self._stage("denoise"):
                latent = latents.to_vae(self._denoise(guidance, index, seed))
            with self._stage("decode"):
                pixels = self._model.decode(latent, self._monitor)
            pictures.append(Picture(pixels, latent[0], seed))
        return tuple(pictures)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Counts the time of this context to a stage, and what of it went into reading files to "load"."""
        started, reading = time.perf_counter(), self._model.reading_seconds
        yield
        read = self._model.reading_seconds - reading
        self.seconds["load"] += read
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started - read

    def _guidance(self) -> Guidance:
        request = self._request
        prompts = [request.positive_prompt or ""]
        if _is_guided(request):
            prompts.append(request.effective_negative_prompt or "")
        positive, *negative = self._model.encode(prompts, request.clip_skip or 0, self._monitor)
        return Guidance(positive, negative[0] if negative else None, request.effective_cfg_scale)

    def _denoise(self, guidance: Guidance, index: int, seed: int) -> torch.Tensor:
        """The latent of result `index`, [1, 16, height / 8, width / 8] in model space, float32 on the CPU."""
        request = self._request
        resident = self._model.transformer()
        # The layers that are never stored narrower than they compute tell the dtype of the work.
        dtype = resident.module.pos_embed.proj.weight.dtype
        room = activation_bytes(
            request.width,
            request.height,
            guidance.positive.context.shape[1],
            resident.module.inner_dim,
            dtype.itemsize,
            2 if guidance.negative is not None else 1,
        )

        def work(streamed: bool) -> torch.Tensor:
            self._monitor.check()
            with resident.on_device(room, streamed=streamed) as device:
                velocity = Velocity(
                    resident.module,
                    guidance.to(device, dtype),
                    self._sigmas,
                    dtype,
                    self._monitor,
                    first_step=index * request.steps,
                    total_steps=request.number_results * request.steps,
                    together=not streamed,
                )
                noise = NoiseStream([seed], latents.shape(request.width, request.height), device)
                # At sigma 1 there is nothing but noise.
                return self._scheduler.sampler(velocity, noise.initial, self._sigmas, noise).float().cpu()

        return when_full(work, lambda: memory_is_full("this picture", "choose a smaller width or height"))[0]
