"""What a picture is worth beside another one, and what the transformer computed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

LEAST_ERROR = 1e-10
"""Mean square below which two pictures count as the same: PSNR ends at 100 dB."""

SSIM_SIDE, SSIM_SIGMA = 11, 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def psnr(picture: torch.Tensor, reference: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two pictures with values from 0 to 1; at most 100."""
    error = (picture.double() - reference.double()).square().mean().clamp_min(LEAST_ERROR)
    return -10 * error.log10().item()


def ssim(picture: torch.Tensor, reference: torch.Tensor) -> float:
    """Structural similarity of two pictures [height, width, 3] from 0 to 1: the mean over places and colour channels.

    Wang et al. 2004, "Image quality assessment", with its Gaussian window of 11 pixels, and no padding.
    """
    offsets = torch.arange(SSIM_SIDE, dtype=torch.float64) - SSIM_SIDE // 2
    line = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def local(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values, window)

    x, y = (image.double().permute(2, 0, 1)[:, None] for image in (picture, reference))
    mean_x, mean_y = local(x), local(y)
    variance_x, variance_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_K1**2) / (mean_x**2 + mean_y**2 + SSIM_K1**2)
    structure = (2 * covariance + SSIM_K2**2) / (variance_x + variance_y + SSIM_K2**2)
    return (luminance * structure).mean().item()


class Meter:
    """Counts what modules compute while it is entered: FLOPs of matrix products, convolutions and attention.

    A module is counted when it is called, at what PyTorch's counter says of a call of its class with such shapes. A
    call inside another counted one is not counted again. So it costs a run next to nothing, and sees whatever calls
    the modules.
    """

    def __init__(self, modules: Iterable[torch.nn.Module]):
        self.flops = 0
        self._modules = tuple(modules)
        self._known: dict[tuple[Any, ...], int] = {}
        self._depth = 0

    def __enter__(self) -> Meter:
        self.flops = self._depth = 0
        self._hooks = ExitStack()
        for module in self._modules:
            self._hooks.callback(module.register_forward_pre_hook(self._entered).remove)
            self._hooks.callback(module.register_forward_hook(self._left, with_kwargs=True).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _entered(self, module: torch.nn.Module, given: object) -> None:
        self._depth += 1

    def _left(self, module: torch.nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], result: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        values = (*given, *named.values())
        key = (module, *(value.shape for value in values if isinstance(value, torch.Tensor)))
        if key not in self._known:
            self._depth += 1
            self._known[key] = flops(module, given, named)
            self._depth -= 1
        self.flops += self._known[key]


def flops(module: torch.nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    """The FLOPs of one call, by another one that is counted."""
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        type(module).forward(module, *given, **named)
    return counter.get_total_flops()


def transformer_parts(transformer: torch.nn.Module) -> list[torch.nn.Module]:
    """What a Meter watches of an SD3Transformer2DModel: its blocks and what is around them, and the parts of the first
    and the last block, which caches call alone.
    """
    around = ("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out")
    blocks = transformer.transformer_blocks
    return [*(getattr(transformer, name) for name in around), *blocks, *blocks[0].children(), *blocks[-1].children()]
