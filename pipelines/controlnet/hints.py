"""What a net is shown: the guide image as latents, in the form that the net was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..canvas import Canvas, fitted
from ..inputs import opaque, starts
from ..latents import PIXELS, SCALE, to_model
from .keys import ControlNetShape

if TYPE_CHECKING:
    import torch

    from ..inputs import Start
    from ..materials import Materials
    from ..model import Model
    from ..monitor import Monitor
    from ..request import ImageInference


class Hints:
    """The hints of one run, each guide image encoded once a canvas and form."""

    def __init__(self, request: ImageInference, model: Model, materials: Materials, monitor: Monitor):
        self._request = request
        self._model = model
        self._materials = materials
        self._monitor = monitor
        self._encoded: dict[tuple[object, ...], torch.Tensor] = {}
        self._starts: Sequence[Start] | None = None

    def hint(self, shape: ControlNetShape, guide: str, canvas: Canvas, index: int) -> torch.Tensor:
        """What a net of this shape is shown for result `index`: [1, 16 or 17, h, w], float32 on the CPU."""
        import torch

        pictures = self._materials.pictures[guide]
        number = index % len(pictures)
        form, keep = shape.type, None
        if shape.inpaints:
            form = f"masked {index % len(self._all_starts())}"
            keep = self._keep(pictures[number], canvas, index)
        key = (guide, number, canvas, form)
        if key not in self._encoded:
            shown = canvas.take(fitted(opaque(pictures[number].cpu()), canvas.width, canvas.height))
            # A pixel that is not kept is black, as in diffusers' StableDiffusion3ControlNetInpaintingPipeline.
            shown = shown * keep[..., None] if keep is not None else trained_form(shown, form)
            self._encoded[key] = self._model.encode_picture(shown, self._monitor)
        latent = self._encoded[key]
        latent = to_model(latent) if shape.shifted else latent * SCALE
        if keep is not None:
            latent = torch.cat([latent, keep[None, None, ::PIXELS, ::PIXELS]], dim=1)
        return latent

    def has_mask(self, guide: str) -> bool:
        """Whether anything tells an inpainting net what to paint."""
        return self._all_starts()[0].mask is not None or self._materials.pictures[guide].shape[-1] == 4

    def _keep(self, picture: torch.Tensor, canvas: Canvas, index: int) -> torch.Tensor:
        """1 where an inpainting net is to keep what the guide image shows, 0 where it is to paint: [painted height,
        painted width].

        It is the run's own mask, so that net and sampler agree; without one, the guide image's transparent part is
        painted; without transparency too, all is kept, as ComfyUI's plain Apply ControlNet tells such a net.
        """
        import torch

        every = self._all_starts()
        mask = every[index % len(every)].mask
        if mask is not None:
            shown = mask[..., None]
        elif picture.shape[-1] == 4:
            shown = fitted(1 - picture[..., 3:].float().cpu().clamp(0, 1), canvas.width, canvas.height)
        else:
            return torch.ones(canvas.painted_height, canvas.painted_width)
        return (canvas.take(shown)[..., 0] <= 0.5).float()

    def _all_starts(self) -> Sequence[Start]:
        if self._starts is None:
            plan = self._model.plan
            self._starts = starts(self._request, self._materials, plan.native_side, plan.max_side)
        return self._starts


def trained_form(picture: torch.Tensor, control_type: str | None) -> torch.Tensor:
    """The guide image [height, width, 3] from 0 to 1, so that the VAE, which is given 2 p - 1 of it, gets what
    Stability's nets were trained on.

    canny: x * 255 * 0.5 + 0.5, as published (Stability-AI/sd3.5, sd3_infer.py, `vae_encode`; diffusers PR #10020).
    ComfyUI makes 2 p - 1 of that as well, and so shows another hint. depth: what is near is dark in the published
    example (inputs/depth.png there), and light in the maps of ComfyUI's depth nodes; so it is turned round, as ComfyUI
    does. blur, and files that do not say what they are: as it is.
    """
    if control_type == "canny":
        return (picture * 255 * 0.5 + 0.5 + 1) / 2
    if control_type == "depth":
        return 1 - picture
    return picture
