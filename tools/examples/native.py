"""The picture of the native accelerator's help page: sd3-nano sampled by ComfyUI's own SD3, without and with a cache.

ComfyUI takes a transformer only as wide as 64 x its blocks, and with the published widths of text. So the tiny model's
channels are written several times over, and each weight is shared out among them: every activation is the tiny model's,
repeated, and so is the picture.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.comfy_inside import import_comfy
from tools.pack import ROOT, import_pack

NANO = ROOT / "assets" / "nano" / "sd3-nano.safetensors"
PREFIX = "model.diffusion_model."
CONTEXT, POOLED = 4096, 2048
PROMPT, SIDE, STEPS, SEED, GUIDANCE = "a purple triangle on the right, yellow background", 128, 28, 21, 5.0
TEXT_LAYERS = {"context_embedder": CONTEXT, "y_embedder.mlp.0": POOLED}
# What they read are not the model's channels, and what the last one writes are not.
OTHER_INPUTS, OTHER_OUTPUTS = ("t_embedder.mlp.0", "x_embedder.proj"), ("final_layer.linear",)


def pictures() -> list[Image.Image]:
    """Without a cache and with TeaCache. ComfyUI's log, which is printed, says what was decided about the steps."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        import_comfy(Path(folder))
        import_pack()
        import comfy.sd
        from safetensors.torch import load_file, save_file
        from sd3_local.host.native_cache import accelerated
        from sd3_local.pipelines.monitor import Unwatched
        from sd3_local.pipelines.parse import parse_part
        from sd3_local.pipelines.request import AcceleratorOptions

        from tests.engines import open_model

        wide = Path(folder) / "wide.safetensors"
        save_file(widened(load_file(NANO)), wide)
        model = comfy.sd.load_diffusion_model(str(wide), model_options={"dtype": torch.float32})
        nano = open_model(NANO)
        conds = [
            [[_filled(text.context, CONTEXT), {"pooled_output": _filled(text.pooled, POOLED)}]]
            for text in nano.encode([PROMPT, ""], 0, Unwatched())
        ]
        faster = accelerated(model, parse_part(AcceleratorOptions, {"teaCache": True}))
        drawn = [nano.decode(_sampled(each, conds), Unwatched()) for each in (model, faster)]
    return [Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)) for picture in drawn]


def widened(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tiny model's transformer as ComfyUI takes it, under the names of a checkpoint."""
    blocks = 1 + max(int(found[1]) for name in tensors if (found := re.search(r"joint_blocks\.(\d+)\.", name)))
    channels = tensors[f"{PREFIX}x_embedder.proj.weight"].shape[0]
    times = 64 * blocks // channels
    wide = {}
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX):
            continue
        layer, _, kind = name.removeprefix(PREFIX).rpartition(".")
        if name.endswith("pos_embed"):
            tensor = _repeated(tensor, 2, channels, times)
        elif not layer.endswith((".ln_q", ".ln_k")):
            if kind == "weight" and layer in TEXT_LAYERS:
                tensor = _filled(tensor, TEXT_LAYERS[layer])
            elif kind == "weight" and layer not in OTHER_INPUTS:
                tensor = _repeated(tensor, 1, channels, times) / times
            if layer not in OTHER_OUTPUTS:
                tensor = _repeated(tensor, 0, channels, times)
        wide[name] = tensor.contiguous()
    return wide


def _repeated(tensor: torch.Tensor, axis: int, channels: int, times: int) -> torch.Tensor:
    """Each run of `channels` along `axis` so many times: those of queries, keys and values stay together."""
    return torch.cat([part for run in tensor.split(channels, axis) for part in [run] * times], axis)


def _filled(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """With zeros behind its last axis."""
    return torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]))


def _sampled(model: Any, conds: list[Any]) -> torch.Tensor:
    """As KSampler does it, [1, 16, h, w]."""
    import comfy.sample

    empty = torch.zeros(1, 16, SIDE // 8, SIDE // 8)
    noise = comfy.sample.prepare_noise(empty, SEED)
    return comfy.sample.sample(
        model, noise, STEPS, GUIDANCE, "euler", "simple", *conds, empty, disable_pbar=True, seed=SEED
    )
