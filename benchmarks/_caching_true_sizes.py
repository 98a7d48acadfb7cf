"""What a reused step costs at the published models' sizes: counted anywhere, and timed where there is CUDA."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from sd3_local.caching import CacheOptions, CacheRun, DiffusersForward
from sd3_local.pipelines.denoise import TIMESTEPS
from sd3_local.pipelines.samplers import sigmas

from . import _output
from ._caching_measures import Meter, transformer_parts

STEPS = 28
MOST_IN_A_ROW = 5
TECHNIQUES = ("fb", "tea", "db")
ROUNDS = 10
# Whatever a step's error is, it is measured, and under this.
ANY_ERROR = 1e30


@dataclass(frozen=True)
class Size:
    """Blocks (and as many heads of 64), and a guided step's latent and text."""

    name: str
    blocks: int
    qk_norm: str | None
    side: int = 128
    words: int = 333
    context: int = 4096
    pooled: int = 2048


SIZES = (Size("SD3 Medium", 24, None), Size("SD3.5 Large", 38, "rms_norm"))


def counted(size: Size) -> Iterator[dict[str, Any]]:
    """The FLOPs of a computed and of a reused step, a row for each technique; nothing is computed for it."""
    transformer = _transformer(size, torch.device("meta"))
    for technique in TECHNIQUES:
        yield {"model": size.name, "technique": technique} | _flops(size, transformer, technique)


def timed(size: Size, device: torch.device, compiled: bool) -> Iterator[dict[str, Any]]:
    """The milliseconds of a call without a cache and of a step of each kind, a row for each technique; `compiled` by
    blocks.
    """
    transformer = _transformer(size, device)
    if compiled:
        for block in transformer.transformer_blocks:
            block.compile()
    inputs = _inputs(size, transformer, 1.0)
    plain = _milliseconds(lambda: transformer(**inputs, return_dict=False), device)
    for technique in TECHNIQUES:
        row = {"model": size.name, "technique": technique, "compiled": compiled, "ms_plain": plain}
        yield row | _times(size, transformer, technique)


def _transformer(size: Size, device: torch.device) -> torch.nn.Module:
    """Of random weights, in bfloat16."""
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(
            num_layers=size.blocks,
            num_attention_heads=size.blocks,
            attention_head_dim=64,
            caption_projection_dim=64 * size.blocks,
            joint_attention_dim=size.context,
            pooled_projection_dim=size.pooled,
            pos_embed_max_size=192,
            qk_norm=size.qk_norm,
        )
    # Its own `to` warns of parts that other models keep in float32.
    torch.nn.Module.to(transformer.eval().requires_grad_(False), torch.bfloat16)
    if device.type != "meta":
        transformer.to_empty(device=device)
        for tensor in (*transformer.parameters(), *transformer.buffers()):
            tensor.normal_(std=0.02)
    return transformer


def _inputs(size: Size, transformer: torch.nn.Module, sigma: float) -> dict[str, torch.Tensor]:
    place = {"device": transformer.device, "dtype": transformer.dtype}
    return {
        "hidden_states": torch.randn(2, 16, size.side, size.side, **place),
        "encoder_hidden_states": torch.randn(2, size.words, size.context, **place),
        "pooled_projections": torch.randn(2, size.pooled, **place),
        "timestep": torch.full((2,), TIMESTEPS * sigma, device=transformer.device),
    }


def _run(size: Size, transformer: torch.nn.Module, technique: str, limit: float) -> Iterator[CacheRun]:
    """A run that reuses whatever the bounds let it, handed out after each of its steps."""
    schedule = sigmas("default", STEPS)
    options = CacheOptions(technique, limit, range(STEPS), MOST_IN_A_ROW)
    run = CacheRun(options, schedule, transformer.device)
    for sigma in schedule[:-1]:
        inputs = _inputs(size, transformer, sigma)
        run.evaluate(sigma, {"both": DiffusersForward(transformer, *inputs.values(), lambda: None, lambda: None)})
        yield run
    run.close()


@torch.inference_mode()
def _flops(size: Size, transformer: torch.nn.Module, technique: str) -> dict[str, int]:
    """Of the first computed step and of the first reused one."""
    found: dict[str, int] = {}
    before = 0
    with Meter(transformer_parts(transformer)) as meter:
        for run in _run(size, transformer, technique, float("inf")):
            found.setdefault(f"flops_{run.trace.rows[-1].action}", meter.flops - before)
            before = meter.flops
            if len(found) == 2:
                break
    return found


@torch.inference_mode()
def _times(size: Size, transformer: torch.nn.Module, technique: str) -> dict[str, float | None]:
    """Milliseconds of a computed step, of a reused one, and of one whose error is measured before it is reused."""
    found: dict[str, float | None] = {}
    for name, limit in (("ms_reused", float("inf")), ("ms_reused_measured", ANY_ERROR)):
        # The first run is a warm-up, and compiles.
        for _ in range(2):
            last = list(_run(size, transformer, technique, limit))[-1]
        found[name] = last.trace.mean_ms("reused")
    return found | {"ms_computed": last.trace.mean_ms("computed")}


@torch.inference_mode()
def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started)

    return statistics.median([once() for _ in range(ROUNDS + 3)][3:])


def measure() -> list[dict[str, Any]]:
    """Counts, times where it can, and prints."""
    found = [row for size in SIZES for row in counted(size)]
    columns = {
        "model": lambda row: row["model"],
        "technique": lambda row: row["technique"],
        "TFLOP computed": lambda row: f"{row['flops_computed'] / 1e12:.2f}",
        "TFLOP reused": lambda row: f"{row['flops_reused'] / 1e12:.3f}",
        "reused / computed": lambda row: f"{100 * row['flops_reused'] / row['flops_computed']:.2f} %",
    }
    print("\nA guided step of 1024 x 1024 at the published sizes, FLOPs:\n")
    print(_output.table(found, columns))
    if not torch.cuda.is_available():
        print("\nTheir times are left out: there is no CUDA device.")
        return found
    times = [row for size in SIZES for on in (False, True) for row in timed(size, torch.device("cuda"), on)]
    columns = {
        "model": lambda row: row["model"],
        "blocks": lambda row: "compiled" if row["compiled"] else "eager",
        "technique": lambda row: row["technique"],
        "ms without cache": lambda row: _output.seconds(row["ms_plain"]),
        "ms computed": lambda row: _output.seconds(row["ms_computed"]),
        "ms reused, measured": lambda row: _output.seconds(row["ms_reused_measured"]),
        "ms reused, not measured": lambda row: _output.seconds(row["ms_reused"]),
    }
    print(f"\nThe same in time ({torch.cuda.get_device_name()}, bfloat16, random weights):\n")
    print(_output.table(times, columns))
    return found + times
