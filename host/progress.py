"""A run as ComfyUI's user sees it: the progress bar, the live preview, the cancel button."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_management as mm
import comfy.utils
import latent_preview
import torch
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image

from ..pipelines import latents
from ..pipelines.model import Model

SMALL_VAE = 5_000_000
"""Parameters up to which a VAE is cheap enough to draw its own previews."""

PREVIEW_LATENTS = 32
"""Longest side, in latents, of a preview drawn by the model's own VAE."""


class ComfyMonitor:
    """Moves the bar of the node that is executing, and stops the run within one step when the user cancels it."""

    def __init__(self, model: Model):
        self._model = model
        self._bar: comfy.utils.ProgressBar | None = None
        self._previewer = None
        self._own_preview = False
        if args.preview_method != LatentPreviewMethod.NoPreviews:
            # ComfyUI's linear preview knows the published latent space; the tiny model has one of its own.
            self._own_preview = model.plan.vae is not None and model.plan.vae.parameters <= SMALL_VAE
            if not self._own_preview:
                self._previewer = latent_preview.get_previewer(mm.get_torch_device(), comfy.latent_formats.SD3())

    def check(self) -> None:
        mm.throw_exception_if_processing_interrupted()

    def step(self, done: int, total: int, x0: torch.Tensor) -> None:
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total, self._preview(x0))

    def _preview(self, x0: torch.Tensor) -> tuple[str, Image.Image, int] | None:
        if self._own_preview:
            return ("JPEG", self._decoded(x0), args.preview_size)
        return self._previewer.decode_latent_to_preview_image("JPEG", x0) if self._previewer is not None else None

    def _decoded(self, x0: torch.Tensor) -> Image.Image:
        shrink = min(1.0, PREVIEW_LATENTS / max(x0.shape[-2:]))
        if shrink < 1.0:
            x0 = torch.nn.functional.interpolate(x0, scale_factor=shrink, mode="area")
        picture = self._model.decode(latents.to_vae(x0), self)
        return Image.fromarray((picture * 255).round().to(torch.uint8).numpy())
