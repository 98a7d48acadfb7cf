"""ComfyUI's LazyCache on the embedded model, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from sd3_local.pipelines.latents import shape
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.samplers import initial_noise, sigmas

from tests.comfy_inside import import_comfy

from ._caching_measures import Meter
from ._caching_methods import Method, Shot, Task

FULL_RUN = "ComfyUI, full run"
PREFIX = "model.diffusion_model."
THRESHOLDS = (0.2, 0.35, 0.6, 1.0, 1.75)


class ComfyUI:
    """ComfyUI's model, guider and Euler sampler on the weights of `path`, with the pack's sigmas, noise, conditioning
    and VAE: a full run paints the pack's own picture.

    ComfyUI derives the number of blocks from the width, and the embedded model has more; told that one number, its own
    class of SD3 takes the file as it is.
    """

    def __init__(self, path: Path, model: Model, base: Path):
        import_comfy(base, ("--cpu", "--use-pytorch-cross-attention"))
        import comfy.model_detection
        import comfy.model_management
        import comfy.model_patcher
        import comfy.utils

        weights = comfy.utils.load_torch_file(str(path))
        config = comfy.model_detection.detect_unet_config(weights, PREFIX)
        config["num_blocks"] = comfy.model_detection.count_blocks(list(weights), PREFIX + "joint_blocks.{}.")
        chosen = comfy.model_detection.model_config_from_unet_config(config, weights)
        chosen.set_inference_dtype(torch.float32, None)
        native = chosen.get_model(weights, PREFIX)
        native.load_model_weights(weights, PREFIX)
        device = comfy.model_management.get_torch_device()
        self._native = comfy.model_patcher.ModelPatcher(native, device, device)
        self._meter = Meter([native.diffusion_model])
        self._model = model

    def methods(self) -> Iterator[Method]:
        yield Method(FULL_RUN, "all steps", self.paint)
        for threshold in THRESHOLDS:
            paint = partial(self.paint, threshold=threshold)
            yield Method("ComfyUI, LazyCache", f"reuse_threshold {threshold:g}", paint, reference=FULL_RUN)

    @torch.inference_mode()
    def paint(self, task: Task, threshold: float | None = None) -> Shot:
        """`threshold` is LazyCache's; None leaves it out. Its window is the node's default."""
        import comfy.sample
        import comfy.samplers
        from comfy_extras.nodes_easycache import LazyCacheNode

        native = self._native
        if threshold is not None:
            window = {"start_percent": 0.15, "end_percent": 0.95}
            native = LazyCacheNode.execute(native, threshold, **window, verbose=False).args[0]
        texts = self._model.encode([task.prompt, ""], 0, Unwatched())
        positive, negative = ([[text.context, {"pooled_output": text.pooled}]] for text in texts)
        noise = initial_noise(task.seed, (1, *shape(task.width, task.height)))
        sampler = comfy.samplers.sampler_object("euler")
        schedule = torch.tensor(sigmas("default", task.steps))
        empty = torch.zeros_like(noise)
        with self._meter:
            started = time.perf_counter()
            latent = comfy.sample.sample_custom(
                native,
                noise,
                task.guidance,
                sampler,
                schedule,
                positive,
                negative,
                empty,
                disable_pbar=True,
                seed=task.seed,
            )
            seconds = time.perf_counter() - started
        return Shot(self._model.decode(latent, Unwatched()), seconds, self._meter.flops)
