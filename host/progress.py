"""A run as ComfyUI's user sees it: the progress bar, the live preview, the seconds left, the cancel button."""

from __future__ import annotations

import time

import comfy.latent_formats
import comfy.model_management as mm
import comfy.utils
import latent_preview
import torch
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image

from ..pipelines import latents
from ..pipelines.model import Model
from ..pipelines.pace import Pace
from . import execution

SMALL_VAE = 5_000_000
"""Parameters up to which a VAE is cheap enough to draw its own previews."""

PREVIEW_LATENTS = 32
"""Longest side, in latents, of a preview drawn by the model's own VAE."""

PREVIEW_SECONDS, TEXT_SECONDS = 0.1, 0.2
"""How often at most the preview and the text change: an eye sees no more, and fast steps are not slowed down."""

PROGRESS = "sd3local.progress"
"""The event that tells the editor more of a run than ComfyUI's own bar does."""


class ComfyMonitor:
    """Moves the bar of the node that is executing, and stops the run within one step when the user cancels it."""

    def __init__(self, model: Model, results: int = 1):
        self._model = model
        self._pace = Pace(results)
        self._total = 0
        self._bar: comfy.utils.ProgressBar | None = None
        self._drawn = self._told = float("-inf")
        # ComfyUI's linear preview knows the published latent space; the tiny model has one of its own.
        self._own_preview = model.plan.vae is not None and model.plan.vae.parameters <= SMALL_VAE
        self._previewer = None if self._own_preview else _previewer()
        self._shows = _wants_previews()

    def check(self) -> None:
        mm.throw_exception_if_processing_interrupted()

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        if self._bar is None:
            self._bar, self._total = comfy.utils.ProgressBar(total), total
        self._bar.update_absolute(done, total, self._preview(x0, done == total))
        # A face that is painted again counts steps of its own, and nobody knows how many faces there will be.
        aside = total != self._total
        if not aside:
            self._pace.step(done, total, reused)
        now = time.perf_counter()
        if done in (1, total) or now - self._told >= TEXT_SECONDS:
            self._told = now
            told = {"done": done, "total": total, "reused": self._pace.reused, "aside": aside}
            execution.tell(PROGRESS, {**told, "left": None if aside else self._pace.left(total)})

    def _preview(self, x0: torch.Tensor, last: bool) -> tuple[str, Image.Image, int] | None:
        now = time.perf_counter()
        if not self._shows or (now - self._drawn < PREVIEW_SECONDS and not last):
            return None
        self._drawn = now
        if self._own_preview:
            return ("JPEG", self._decoded(x0), args.preview_size)
        return self._previewer.decode_latent_to_preview_image("JPEG", x0)

    def _decoded(self, x0: torch.Tensor) -> Image.Image:
        shrink = min(1.0, PREVIEW_LATENTS / max(x0.shape[-2:]))
        if shrink < 1.0:
            x0 = torch.nn.functional.interpolate(x0, scale_factor=shrink, mode="area")
        picture = self._model.decode(latents.to_vae(x0), self)
        return Image.fromarray((picture * 255).round().to(torch.uint8).numpy())


def _wants_previews() -> bool:
    """Whether the user did not say no: ComfyUI shows no previews unless it is asked, but ours cost next to nothing."""
    return args.preview_method != LatentPreviewMethod.NoPreviews or not execution.refuses_previews()


def _previewer() -> latent_preview.LatentPreviewer:
    """The one that the user chose, else the linear one: a small matrix, and no model."""
    space = comfy.latent_formats.SD3()
    chosen = latent_preview.get_previewer(mm.get_torch_device(), space)
    if chosen is not None:
        return chosen
    return latent_preview.Latent2RGBPreviewer(space.latent_rgb_factors, space.latent_rgb_factors_bias)
