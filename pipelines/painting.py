"""One canvas, from noise or a seed image to latents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import latents
from .denoise import Guidance, Velocity, activation_bytes
from .features import Feature, Stage
from .inpaint import KeepOutside
from .model import memory_is_full
from .monitor import Monitor
from .placement import when_full
from .samplers import NoiseStream

if TYPE_CHECKING:
    import torch

    from .accelerator import Accelerator
    from .model import Model
    from .samplers import Sampler


@dataclass(frozen=True)
class Painting:
    """One canvas to sample.

    `sigmas` are those that are left to run, falling to 0. `init` [1, 16, h, w] in model space is what it starts from,
    under noise; None is noise alone. `mask` [1, 1, h, w] is where `init` may change; None is everywhere. The run counts
    from `first_step` of `total_steps` for whoever watches.
    """

    width: int
    height: int
    guidance: Guidance
    sampler: Sampler
    sigmas: Sequence[float]
    seed: int
    first_step: int
    total_steps: int
    init: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    features: Sequence[Feature] = ()
    accelerator: Accelerator | None = None


def remaining(sigmas: Sequence[float], strength: float) -> Sequence[float]:
    """The end of a schedule that `strength` leaves to run, from 0 (none) to 1 (all of it).

    As diffusers counts them (StableDiffusion3Img2ImgPipeline.get_timesteps): strength 0.3 of 50 steps leaves 15.
    """
    steps = len(sigmas) - 1
    return sigmas[int(max(steps - min(steps * strength, steps), 0)) :]


def paint(model: Model, painting: Painting, monitor: Monitor) -> torch.Tensor:
    """The latent [1, 16, height / 8, width / 8] in model space, float32 on the CPU."""
    resident = model.transformer()
    # The layers that are never stored narrower than they compute tell the dtype of the work.
    dtype = resident.module.pos_embed.proj.weight.dtype
    room = _room(resident.module, painting, dtype)
    beside = [other for feature in painting.features for other in feature.residents]

    def work(streamed: bool) -> torch.Tensor:
        monitor.check()
        with model.placement.together([resident, *beside], room, streamed=streamed) as device:
            noise = NoiseStream([painting.seed], latents.shape(painting.width, painting.height), device)
            features = list(painting.features)
            if painting.init is not None and painting.mask is not None:
                features.append(KeepOutside(painting.init, noise.initial, painting.mask))
            accelerator, transformer = painting.accelerator, resident.module
            with ExitStack() as stack:
                cache = stack.enter_context(
                    nullcontext() if accelerator is None else accelerator.running(transformer, painting.sigmas, device)
                )
                for feature in features:
                    stack.enter_context(feature.running(Stage(transformer, resident, device, dtype)))
                velocity = Velocity(
                    transformer,
                    painting.guidance.to(device, dtype),
                    painting.sigmas,
                    dtype,
                    monitor,
                    features=features,
                    cache=cache,
                    first_step=painting.first_step,
                    total_steps=painting.total_steps,
                    together=not streamed,
                )
                latent = painting.sampler(velocity, _start(painting, noise.initial), painting.sigmas, noise)
                for feature in features:
                    latent = feature.finish(latent)
            return latent.float().cpu()

    return when_full(work, lambda: memory_is_full("this picture", "choose a smaller width or height"))[0]


def _start(painting: Painting, noise: torch.Tensor) -> torch.Tensor:
    """x at the first sigma: x = (1 - sigma) init + sigma noise. At sigma 1 there is nothing but noise."""
    if painting.init is None:
        return noise
    sigma = painting.sigmas[0]
    return sigma * noise + (1 - sigma) * painting.init.to(noise.device)


def _room(transformer: torch.nn.Module, painting: Painting, dtype: torch.dtype) -> int:
    context = painting.guidance.positive.context.shape[1]
    batch = 2 if painting.guidance.negative is not None else 1
    width, height, inner = painting.width, painting.height, transformer.inner_dim
    tokens = batch * (width // 16) * (height // 16) * inner * dtype.itemsize
    using = [*painting.features, *([] if painting.accelerator is None else [painting.accelerator])]
    beside = sum(user.activation_bytes(tokens) for user in using)
    return activation_bytes(width, height, context, inner, dtype.itemsize, batch) + beside
