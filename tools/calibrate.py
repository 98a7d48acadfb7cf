"""Calibrates the accelerators for models: `python -m tools.calibrate MODEL.safetensors [...] --tokenizers COMFYUI`.

Each model's file of results goes into caching/calibrations, which is shipped. sd3-nano is measured on captions of its
own world and at three sizes; every other model on the prompts that the node SD3 Calibrate has, at its native size. A
run that is stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tools.nano.captions import full_caption
from tools.nano.clock import device
from tools.pack import ROOT, import_pack
from tools.starter.demo import Display

if TYPE_CHECKING:
    from sd3_local.caching import Settings
    from sd3_local.pipelines.model import Model

NANO = ROOT / "assets" / "nano" / "sd3-nano.safetensors"
NANO_SIZES = ((128, 128), (192, 128), (192, 192))
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BAR = 40


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.calibrate", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="single-file checkpoints")
    parser.add_argument("--tokenizers", type=Path, required=True, help="ComfyUI's folder comfy, which has them")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="fp32 on the CPU, else bf16; may be repeated")
    parser.add_argument("--prompts", type=int, default=18, help="uncached runs to measure in (default 18)")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, default=5.0, help="CFG scale")
    parser.add_argument("--again", action="store_true", help="also models that have results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    import_pack()
    from sd3_local.caching import SHIPPED
    from sd3_local.pipelines.calibrate import calibrate

    on = device()
    for path in given.models:
        for dtype in given.dtype or ["fp32" if on.type == "cpu" else "bf16"]:
            model = _open(path, given.tokenizers, on, DTYPES[dtype])
            settings = _settings(path, model, given)
            done = calibrate(model, settings, SHIPPED, _Bar(f"{path.stem} in {dtype}"), again=given.again)
            print(done, flush=True)


def _open(path: Path, comfy: Path, on: torch.device, dtype: torch.dtype) -> Model:
    from sd3_local.pipelines.loading import ModelFiles
    from sd3_local.pipelines.model import Model
    from sd3_local.pipelines.placement import LocalPlacement
    from sd3_local.pipelines.text import TokenizerFiles

    tokenizers = TokenizerFiles(comfy / "sd1_tokenizer", comfy / "text_encoders" / "t5_tokenizer")
    return Model(ModelFiles(path), tokenizers, LocalPlacement(on, dtype))


def _settings(path: Path, model: Model, given: argparse.Namespace) -> Settings:
    from sd3_local.caching import Settings
    from sd3_local.pipelines.calibrate import PROMPTS, usual_side

    nano = path.resolve() == NANO
    side = usual_side(model)
    return Settings(
        prompts=_captions(given.prompts) if nano else PROMPTS[: given.prompts],
        sizes=NANO_SIZES if nano else ((side, side),),
        steps=given.steps,
        guidance_scale=given.guidance,
    )


def _captions(count: int) -> tuple[str, ...]:
    """Captions of scenes that neither training nor any judgement has seen."""
    import numpy as np

    from tools.nano.world import sample_scene

    rng = np.random.default_rng([7, 900])
    return tuple(full_caption(sample_scene(rng)) for _ in range(count))


class _Bar:
    """The progress of one calibration."""

    def __init__(self, name: str):
        self._name = name
        self._display = Display()

    def check(self) -> None:
        pass

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        self._display.line(f"{self._name} [{'#' * (BAR * done // total):<{BAR}}] {done} of {total} steps")
        if done == total:
            self._display.end()


if __name__ == "__main__":
    main()
