"""A request in, pictures out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import inputs, latents
from .canvas import Canvas, latent_mask
from .denoise import Guidance
from .errors import Fault, RequestError
from .features import Account, Feature
from .inputs import Start
from .materials import Materials
from .monitor import Monitor
from .painting import Painting, paint, remaining
from .report import Report
from .request import random_seed
from .samplers import scheduler, sigmas

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
    """[16, height / 8, width / 8] in the VAE's own space, float32, on the CPU: before faces were painted again."""
    seed: int
    nsfw: bool | None = None
    """Whether the picture is unsafe; None where it was not checked."""


@dataclass(frozen=True)
class Result:
    """What came of a request; `request` is as it was run, with its seed."""

    request: ImageInference
    pictures: tuple[Picture, ...]
    report: Report
    previews: tuple[torch.Tensor, ...] = ()
    """What there is to see of how they came about, [height, width, 3] each: results in which faces were looked for, as
    they were before, with the boxes found; and what an accelerator decided about each step."""


def check(request: ImageInference, model: Model, materials: Materials) -> Scheduler:
    """The scheduler of a request that this model can run with these materials. Raises RequestError with all that stands
    against it; loads nothing.
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
    faults += inputs.check_inputs(request, materials)
    if request.lora:
        from .lora import check_loras

        faults += check_loras(request, model, materials)
    if request.control_net:
        from .controlnet import check_control_nets

        faults += check_control_nets(request, model, materials)
    if request.ip_adapters:
        from .ip_adapter import check_ip_adapters

        faults += check_ip_adapters(request, model, materials)
    if request.ultralytics is not None:
        from .faces import check_faces

        faults += check_faces(request, materials)
    if request.safety is not None:
        from .safety import check_safety

        faults += check_safety(request, materials)
    if faults:
        raise RequestError.of(faults)
    assert chosen is not None
    return chosen


NO_MATERIALS = Materials()


def generate(request: ImageInference, model: Model, monitor: Monitor, materials: Materials = NO_MATERIALS) -> Result:
    """Runs a request; `materials` are the pictures and files that it names.

    Each picture has a seed of its own, `request.seed` + i, and is the same whether it is asked for alone or with
    others. Raises RequestError for what can't run, before anything is loaded, and whatever `monitor` raises to stop the
    run.
    """
    import torch

    chosen = check(request, model, materials)
    if request.seed is None:
        request = request.model_copy(update={"seed": random_seed()})
    with torch.inference_mode():
        run = _Run(request, chosen, model, monitor, materials)
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
        accounts=tuple(run.accounts()),
        executed=run.executed,
    )
    return Result(request, pictures, report, run.previews)


def _is_guided(request: ImageInference) -> bool:
    return request.effective_cfg_scale > 1


class _Run:
    """The state of one `generate`: the features that the request asks for, made new and gone with it."""

    def __init__(
        self, request: ImageInference, chosen: Scheduler, model: Model, monitor: Monitor, materials: Materials
    ):
        self.seconds: dict[str, float] = {"load": 0.0}
        self.executed = 0
        self._request = request
        self._scheduler = chosen
        self._model = model
        self._monitor = monitor
        self._materials = materials
        self._loras = self._control_nets = self._ip_adapters = self._faces = self._safety = None
        self._accelerator = None
        if request.lora:
            from .lora import Loras

            self._loras = Loras(request, model, materials)
        if request.control_net:
            from .controlnet import ControlNets

            self._control_nets = ControlNets(request, model, materials, monitor)
        if request.ip_adapters:
            from .ip_adapter import IPAdapters

            self._ip_adapters = IPAdapters(request, model, materials, monitor)
        if request.accelerator_options is not None:
            from .accelerator import Accelerator

            self._accelerator = Accelerator(request.accelerator_options, chosen, model.calibrations)
        if request.ultralytics is not None:
            from .faces import FaceFix

            self._faces = FaceFix(request.ultralytics, materials.detector, model.plan)
        if request.safety is not None and request.safety.effective_mode != "none":
            from .safety import SafetyCheck

            self._safety = SafetyCheck(materials.classifier)
        self._starts = inputs.starts(request, materials, model.plan.native_side, model.plan.max_side)
        self._sigmas = sigmas(chosen.schedule, request.steps)
        if request.inputs is not None and request.inputs.seed_image is not None:
            self._sigmas = remaining(self._sigmas, request.strength)
        self._inits: dict[int, torch.Tensor] = {}

    def pictures(self) -> tuple[Picture, ...]:
        return tuple(self._picture(index) for index in range(self._request.number_results))

    def accounts(self) -> list[Account]:
        """What each feature did, in the order in which they act."""
        of_inputs = inputs.account(self._request, self._starts, self._steps)
        given = [] if of_inputs is None else [of_inputs]
        parts = (self._loras, self._control_nets, self._ip_adapters, self._accelerator, self._faces, self._safety)
        for part in parts:
            if part is not None:
                given += part.accounts()
        return given

    @property
    def previews(self) -> tuple[torch.Tensor, ...]:
        faces = () if self._faces is None else tuple(self._faces.previews)
        decisions = None if self._accelerator is None else self._accelerator.preview
        return faces if decisions is None else (*faces, decisions)

    @property
    def _steps(self) -> int:
        """The steps that are executed for each result."""
        return len(self._sigmas) - 1

    def _picture(self, index: int) -> Picture:
        start, seed = self._starts[index % len(self._starts)], self._request.seed + index
        pixels, latent = self._kept(start) if start.is_kept else self._painted(start, index, seed)
        if self._faces is not None:
            with self._stage("faces"):
                pixels = self._faces.fix(
                    pixels, index, lambda canvas, picture, mask: self._face(canvas, picture, mask, seed)
                )
        nsfw = None
        if self._safety is not None:
            with self._stage("safety"):
                nsfw = self._safety.is_unsafe(pixels)
        return Picture(pixels, latent[0], seed, nsfw)

    def _kept(self, start: Start) -> tuple[torch.Tensor, torch.Tensor]:
        with self._stage("encode"):
            return start.picture, self._model.encode_picture(start.picture, self._monitor)

    def _painted(self, start: Start, index: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture, with what the mask keeps put back, and its latent in the VAE's own space."""
        canvas = start.canvas
        with self._stage("text"):
            guidance = self._guidance()
        with self._stage("encode"):
            init = self._init(index % len(self._starts))
            features = self._features(canvas, index)
        with self._stage("denoise"):
            latent = latents.to_vae(
                paint(
                    self._model,
                    Painting(
                        canvas.painted_width,
                        canvas.painted_height,
                        guidance,
                        self._scheduler.sampler,
                        self._sigmas,
                        seed,
                        first_step=index * self._steps,
                        total_steps=self._request.number_results * self._steps,
                        init=init,
                        mask=self._latent_mask(canvas, start.mask),
                        features=features,
                        accelerator=self._accelerator,
                    ),
                    self._monitor,
                )
            )
        self.executed += self._steps
        with self._stage("decode"):
            pixels = self._model.decode(latent, self._monitor)
            if start.mask is not None:
                pixels = canvas.put(start.picture, pixels, start.mask)
            if not canvas.is_whole:
                # What was sampled is a part at another scale; the latent is of the whole picture.
                latent = self._model.encode_picture(pixels, self._monitor)
        return pixels, latent

    def _init(self, start: int) -> torch.Tensor | None:
        """The seed image's latent in model space, as the canvas shows it."""
        if self._starts[start].picture is None:
            return None
        if start not in self._inits:
            shown = self._starts[start].canvas.take(self._starts[start].picture)
            self._inits[start] = latents.to_model(self._model.encode_picture(shown, self._monitor))
        return self._inits[start]

    def _latent_mask(self, canvas: Canvas, mask: torch.Tensor | None) -> torch.Tensor | None:
        return None if mask is None else latent_mask(canvas.take(mask[..., None])[..., 0])

    def _features(self, canvas: Canvas, index: int) -> list[Feature]:
        """The features of result `index` on a canvas."""
        features = self._beside_control()
        if self._control_nets is not None:
            features += self._control_nets.features(canvas, index)
        return features

    def _beside_control(self) -> list[Feature]:
        features: list[Feature] = []
        for part in (self._loras, self._ip_adapters):
            if part is not None:
                features += part.features()
        return features

    def _face(self, canvas: Canvas, picture: torch.Tensor, mask: torch.Tensor, seed: int) -> torch.Tensor:
        """A face painted again: [painted height, painted width, 3].

        With the run's LoRAs and IP-Adapters, but without its ControlNets, which saw the whole picture's outlines.
        """
        options = self._request.ultralytics
        left = remaining(sigmas(self._scheduler.schedule, options.steps), options.strength)
        if len(left) < 2:
            return canvas.take(picture)
        guidance = self._guidance(options.positive_prompt, options.negative_prompt, options.cfg_scale)
        latent = paint(
            self._model,
            Painting(
                canvas.painted_width,
                canvas.painted_height,
                guidance,
                self._scheduler.sampler,
                left,
                seed,
                first_step=0,
                total_steps=len(left) - 1,
                init=latents.to_model(self._model.encode_picture(canvas.take(picture), self._monitor)),
                mask=self._latent_mask(canvas, mask),
                features=self._beside_control(),
                accelerator=self._accelerator,
            ),
            self._monitor,
        )
        self.executed += len(left) - 1
        return self._model.decode(latents.to_vae(latent), self._monitor)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Counts the time of this context to a stage, and what of it went into reading files to "load"."""
        started, reading = time.perf_counter(), self._model.reading_seconds
        yield
        read = self._model.reading_seconds - reading
        self.seconds["load"] += read
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started - read

    def _guidance(
        self, positive: str | None = None, negative: str | None = None, scale: float | None = None
    ) -> Guidance:
        """The guidance of these prompts and this scale, the request's own where they are not given."""
        request = self._request
        scale = request.effective_cfg_scale if scale is None else scale
        prompts = [positive or request.positive_prompt or ""]
        if scale > 1:
            prompts.append(negative or request.negative_prompt or "")
        adapted = self._loras.text if self._loras is not None else None
        encoded = self._model.encode(prompts, request.clip_skip or 0, self._monitor, adapted)
        return Guidance(encoded[0], encoded[1] if scale > 1 else None, scale)
