"""ComfyUI's own SD3 in this process, sampled as its KSampler does it, beside our engine on the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.parse import parse_part
from sd3_local.pipelines.request import AcceleratorOptions

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.controlnets import make_net, write_net
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
# ComfyUI takes a transformer only with the published widths of text and a width of 64 x blocks.
MEDIUM = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048)
DUAL = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048, rms=True, dual=(0, 1))
WIDTH, HEIGHT, STEPS, SEED = 96, 64, 12, 5


class Native:
    """ComfyUI's model, conditioned and sampled as its KSampler does it, and our engine on the same file."""

    def __init__(self, path: Path, net: Path):
        import comfy.sd

        self.path = path
        self.own = open_model(path)
        self.model = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})
        self.net = net
        self._kept: list[Any] = []
        self.positive, self.negative = self.own.encode([request().positive_prompt, "blue"], 0, Unwatched())

    def conds(self, **given: Any) -> list[Any]:
        return [[[each.context, {"pooled_output": each.pooled, **given}]] for each in (self.positive, self.negative)]

    def control(self, start: float = 0.0, end: float = 1.0) -> Any:
        import comfy.controlnet
        import comfy.utils

        net = comfy.controlnet.load_controlnet_state_dict(
            comfy.utils.load_torch_file(str(self.net)), model_options={"dtype": torch.float32}
        )
        return net.set_cond_hint(guide().movedim(-1, 1), 0.8, (start, end), vae=LentVAE(self.own))

    @torch.inference_mode()
    def sample(self, model: Any, **options: Any) -> torch.Tensor:
        """[batch, 16, h, w]; `options` are KSampler's."""
        import comfy.sample

        # As ComfyUI keeps what nodes gave: where a loaded clone is collected, its next loading may trip over it.
        self._kept.append(model)
        given = {"sampler": "euler", "steps": STEPS, "cfg": 4.5, "batch": 1, "denoise": 1.0, **options}
        empty = torch.zeros(given["batch"], 16, HEIGHT // 8, WIDTH // 8)
        if given["denoise"] < 1:
            empty = torch.randn(empty.shape, generator=torch.Generator().manual_seed(2))
        noise = comfy.sample.prepare_noise(empty, SEED)
        return comfy.sample.sample(
            model,
            noise,
            given["steps"],
            given["cfg"],
            given["sampler"],
            "simple",
            *(given.get("conds") or self.conds()),
            empty,
            denoise=given["denoise"],
            start_step=given.get("start"),
            disable_pbar=True,
            callback=given.get("callback"),
            seed=SEED,
        )


class LentVAE:
    """What ComfyUI's nets ask of a VAE; ComfyUI knows its own at the published widths alone."""

    def __init__(self, model: Model):
        self._model = model

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._model.encode_picture(pictures[0], Unwatched())


def guide() -> torch.Tensor:
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bilinear").movedim(1, -1).contiguous()


def asked(**fields: Any) -> Any:
    """The request of our engine that is `Native.sample`."""
    return request(
        width=WIDTH,
        height=HEIGHT,
        steps=STEPS,
        seed=SEED,
        scheduler="DDIM",
        CFGScale=4.5,
        negativePrompt="blue",
        **fields,
    )


def make_native(folder: Path, spec: TransformerSpec) -> Native:
    path = write_checkpoint(folder / "model.safetensors", CheckpointSpec(spec, VAESpec(), **CLIPS), torch.float32)
    dual = {"dual": (0, 1), "rms": True} if spec.dual else {}
    return Native(path, write_net(folder / "net.safetensors", make_net(2, **dual)))


def accelerated(model: Any, **options: Any) -> Any:
    from sd3_local.host.native_cache import accelerated

    return accelerated(model, parse_part(AcceleratorOptions, options))


def apart(native: Native) -> list[Any]:
    """Prompts of different length, for which ComfyUI calls the model one after the other."""
    positive, negative = native.conds()
    return [positive, [[torch.cat([negative[0][0]] * 2, 1), negative[0][1]]]]


def skipping(model: Any, layers: str = "2") -> Any:
    """The model with ComfyUI's skip-layer guidance in all steps."""
    from comfy_extras.nodes_sd3 import SkipLayerGuidanceSD3

    return SkipLayerGuidanceSD3.execute(model, layers, 3.0, 0.0, 1.0).args[0]


def rescaled(model: Any) -> Any:
    """The model with a wrapper of another node's around its function."""
    clone = model.clone()
    clone.set_model_unet_function_wrapper(
        lambda apply, given: 0.9 * apply(given["input"], given["timestep"], **given["c"])
    )
    return clone


def replaced(model: Any, block: int) -> Any:
    """The model with a block of another node's."""

    def weakened(streams: Any, extra: Any) -> Any:
        left = extra["original_block"](streams)
        return {"txt": left["txt"], "img": torch.lerp(streams["img"], left["img"], 0.7)}

    clone = model.clone()
    clone.set_model_patch_replace(weakened, "dit", "double_block", block)
    return clone
