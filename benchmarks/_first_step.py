"""One contender of `bench loading`, in a process of its own: from nothing to the first step, timed and weighed."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

SEED = 1
GiB = 2**30


@dataclass(frozen=True)
class Given:
    """The checkpoint, a folder with its diffusers config, ComfyUI's base folder, and the picture's side in pixels."""

    file: Path
    config: Path
    base: Path
    side: int


class Contender(Protocol):
    """Four parts in this order. The first step is unguided, from sigma 1 to 0, on a conditioning of zeros."""

    def import_host(self) -> None:
        """Imports what runs already when a user asks for a picture."""

    def import_own(self) -> None:
        """Imports what comes on top before anything is loaded."""

    def load(self) -> None: ...

    def step(self) -> torch.Tensor:
        """The latent in model space, [1, 16, side / 8, side / 8]."""


class Ours:
    """What the nodes do, under ComfyUI's memory management. `dtype` is the one of SD3LocalModel."""

    def __init__(self, given: Given, dtype: str):
        self._given = given
        self._dtype = dtype

    def import_host(self) -> None:
        _import_comfy(self._given)

    def import_own(self) -> None:
        import sd3_local.host.memory
        import sd3_local.pipelines.generate  # noqa: F401

    def load(self) -> None:
        from sd3_local.host import folders
        from sd3_local.host.memory import ComfyPlacement
        from sd3_local.pipelines.loading import ModelFiles
        from sd3_local.pipelines.model import Model

        self._model = Model(ModelFiles(self._given.file), folders.tokenizers(), ComfyPlacement(self._dtype))
        self._model.transformer()

    def step(self) -> torch.Tensor:
        from sd3_local.pipelines.generate import generate

        from tests.engines import request

        side = self._given.side
        asked = request(
            positivePrompt=None, CFGScale=1.0, steps=1, scheduler="DDIM", width=side, height=side, seed=SEED
        )
        try:
            generate(asked, self._model, _UntilFirstStep())
        except _FirstStep as reached:
            return reached.x0
        raise RuntimeError("The run ended without a step.")


class _FirstStep(Exception):
    def __init__(self, x0: torch.Tensor):
        super().__init__()
        self.x0 = x0


class _UntilFirstStep:
    """Ends the run before it decodes."""

    def check(self) -> None:
        pass

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        raise _FirstStep(x0)


class ComfyUI:
    """The loader of ComfyUI's UNETLoader, and the sampler of its KSampler."""

    def __init__(self, given: Given):
        self._given = given

    def import_host(self) -> None:
        _import_comfy(self._given)

    def import_own(self) -> None:
        pass

    def load(self) -> None:
        import comfy.sd

        self._model = comfy.sd.load_diffusion_model(str(self._given.file))

    def step(self) -> torch.Tensor:
        import comfy.sample
        import torch
        from sd3_local.pipelines.latents import to_model

        empty = torch.zeros(1, 16, self._given.side // 8, self._given.side // 8)
        noise = comfy.sample.prepare_noise(empty, SEED)
        zeros = [[torch.zeros(1, 77, 4096), {"pooled_output": torch.zeros(1, 2048)}]]
        with torch.inference_mode():
            sampled = comfy.sample.sample(
                self._model, noise, 1, 1.0, "euler", "simple", zeros, zeros, empty, disable_pbar=True, seed=SEED
            )
        return to_model(sampled)


class Diffusers:
    """`from_single_file` with a local configuration, and the stock pipeline."""

    def __init__(self, given: Given):
        self._given = given

    def import_host(self) -> None:
        import torch  # noqa: F401

    def import_own(self) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline  # noqa: F401

    def load(self) -> None:
        import torch
        from diffusers import SD3Transformer2DModel

        self._transformer = SD3Transformer2DModel.from_single_file(
            str(self._given.file), config=str(self._given.config), torch_dtype=torch.float32, local_files_only=True
        )

    def step(self) -> torch.Tensor:
        import torch
        from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

        pipeline = StableDiffusion3Pipeline(
            transformer=self._transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=None,
            **dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=torch.zeros(1, 77, 4096),
            pooled_prompt_embeds=torch.zeros(1, 2048),
            width=self._given.side,
            height=self._given.side,
            guidance_scale=1.0,
            sigmas=[1.0],
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
        ).images


CONTENDERS: dict[str, Callable[[Given], Contender]] = {
    "SD3 Local": lambda given: Ours(given, "auto"),
    "SD3 Local, dtype fp16": lambda given: Ours(given, "fp16"),
    "ComfyUI": ComfyUI,
    "diffusers": Diffusers,
}


def _import_comfy(given: Given) -> None:
    from tests.comfy_inside import import_comfy

    import_comfy(given.base)
    import comfy.sample  # noqa: F401


class MemoryWatch:
    """The most memory that this process had, looked at every few milliseconds from `with` to its end.

    `resident` counts all pages, also those of a mapped file, which the system can drop at any time; `private` is
    without them (None where the system does not tell): what a copy of the weights costs.
    """

    def __init__(self) -> None:
        import psutil

        self.resident = 0
        self.private: int | None = None
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            memory = self._process.memory_info()
            self.resident = max(self.resident, memory.rss)
            if hasattr(memory, "shared"):
                self.private = max(self.private or 0, memory.rss - memory.shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    for name in ("file", "config", "base", "latent"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--side", type=int, required=True)
    asked = parser.parse_args()
    contender = CONTENDERS[asked.contender](Given(asked.file, asked.config, asked.base, asked.side))
    seconds = {}
    with MemoryWatch() as memory:
        for name in ("import_host", "import_own", "load", "step"):
            started = time.perf_counter()
            result = getattr(contender, name)()
            seconds[name] = time.perf_counter() - started
    import torch

    torch.save(result, asked.latent)
    private = None if memory.private is None else memory.private / GiB
    print(json.dumps({"seconds": seconds, "resident_gib": memory.resident / GiB, "private_gib": private}))


if __name__ == "__main__":
    sys.exit(main())
