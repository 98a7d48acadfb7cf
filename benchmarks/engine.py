"""Seconds per step and per picture: the pack, stock diffusers and ComfyUI's own nodes on the same weights and seeds."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    import torch
    from sd3_local.pipelines.placement import LocalPlacement

    from ._engines import Engine, Task

DESCRIPTION = """
Paints the same pictures with three engines in turn and prints the medians: the pack, diffusers' stock
StableDiffusion3Pipeline and ComfyUI's nodes, in this process and, without diffusers, as graphs in a real ComfyUI over
HTTP. Random weights (SD3 Medium's true size on a GPU), then the embedded model. The latents of all three are compared.
"""

CHECKPOINT = "bench.safetensors"
# On a CPU ComfyUI's default is another attention than on a GPU; PyTorch's is the faster one of the two.
COMFYUI_ON_CPU = ("--cpu", "--use-pytorch-cross-attention")
# The file's own type, which ComfyUI would otherwise take for fp16 where the GPU knows both.
COMFYUI_ON_GPU = ("--bf16-unet",)


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    blocks: int
    sizes: tuple[tuple[int, int], ...]
    steps: int
    rounds: int


QUICK = Scale(blocks=2, sizes=((64, 64),), steps=3, rounds=1)
CPU = Scale(blocks=6, sizes=((256, 256), (384, 384)), steps=10, rounds=3)
GPU = Scale(blocks=24, sizes=((1024, 1024),), steps=28, rounds=5)
NANO_SIZE, NANO_STEPS = 128, 28


def main() -> None:
    options = _output.parser("engine", DESCRIPTION)
    options.add_argument("--steps", type=int, metavar="N", help="steps of a picture")
    options.add_argument("--no-server", action="store_true", help="leave out the real ComfyUI over HTTP")
    given = options.parse_args()
    # Read by the ComfyUI that is started, and by torch here when it is first imported.
    os.environ.update({name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    import torch

    torch.set_num_threads(given.threads)
    gpu = torch.cuda.is_available() and not given.quick
    scale = QUICK if given.quick else GPU if gpu else CPU
    bench = Bench(
        scale.sizes,
        given.steps or scale.steps,
        given.rounds or scale.rounds,
        torch.device("cuda" if gpu else "cpu"),
        torch.bfloat16 if gpu else torch.float32,
    )
    with tempfile.TemporaryDirectory(prefix="sd3-local-bench-") as folder:
        base = Path(folder)
        bench.write_checkpoint(base, scale.blocks)
        if not given.no_server:
            bench.served(base)
        bench.in_process(base)
    bench.nano(NANO_STEPS if not given.quick else scale.steps)
    device = torch.cuda.get_device_name() if gpu else "cpu"
    _output.finish("engine", _output.setting(given.threads, device), bench.rows, given.json)


class Bench:
    """The parts of this benchmark, which print a table each and gather their rows."""

    def __init__(
        self, sizes: Sequence[tuple[int, int]], steps: int, rounds: int, device: torch.device, compute: torch.dtype
    ):
        self.rows: list[dict[str, Any]] = []
        self._sizes = sizes
        self._steps = steps
        self._rounds = rounds
        self._device = device
        self._compute = compute
        self._model_name = ""

    @property
    def _comfyui_options(self) -> tuple[str, ...]:
        return COMFYUI_ON_CPU if self._device.type == "cpu" else COMFYUI_ON_GPU

    def write_checkpoint(self, base: Path, blocks: int) -> None:
        """An all-in-one file of SD3's layout in ComfyUI's folder: random weights, the published VAE and CLIP-L."""
        import torch

        from tests.checkpoints import CLIP_L, SD3_VAE, CheckpointSpec, TransformerSpec, write_checkpoint

        # ComfyUI takes only this ratio, and only these widths of text.
        transformer = TransformerSpec(blocks, 64 * blocks, context=4096, pooled=2048, table=192)
        spec = CheckpointSpec(transformer, SD3_VAE, clip_l=CLIP_L)
        dtype = torch.float16 if self._device.type == "cpu" else torch.bfloat16
        need = dtype.itemsize * sum(math.prod(shape) for shape in spec.shapes().values())
        if shutil.disk_usage(base).free < 1.2 * need:
            raise SystemExit(f"{base} has no room for a file of {need / 1e9:.1f} GB; set TMPDIR to a larger folder.")
        path = base / "models" / "checkpoints" / CHECKPOINT
        path.parent.mkdir(parents=True)
        _output.told(f"Writing a file of {need / 1e9:.2f} GB ...")
        write_checkpoint(path, spec, dtype)
        self._model_name = f"{blocks} blocks, width {64 * blocks}"

    def served(self, base: Path) -> None:
        """Both graphs in one ComfyUI process."""
        from tests.comfy_host import ComfyHost

        from . import _served
        from ._engines import OURS, difference

        _output.told("Starting ComfyUI ...")
        cpu = self._device.type == "cpu"
        options = [option for option in self._comfyui_options if option != "--cpu"]
        # By default ComfyUI forgets what the last graph did not use: each engine would load its model in every round.
        with ComfyHost(base, options=[*options, "--cache-lru", "100"], cpu=cpu) as host:
            for width, height in self._sizes:
                task = self._task(width, height, self._steps)
                runs = _served.race(host, CHECKPOINT, task, self._rounds, _output.told)
                for name, run in runs.items():
                    apart = difference(runs[OURS].latents, run.latents)
                    self._add("served", self._model_name, task, name, run.steps, run.totals, apart)
        self._print("served", "Graphs in a real ComfyUI: SD3Local nodes, and CheckpointLoaderSimple with KSampler")

    def in_process(self, base: Path) -> None:
        """All three engines in this process."""
        from tests.comfy_inside import import_comfy
        from tests.engines import open_model

        from . import _engines

        model = open_model(base / "models" / "checkpoints" / CHECKPOINT, placement=self._placement())
        import_comfy(base, self._comfyui_options)
        for width, height in self._sizes:
            task = self._task(width, height, self._steps)
            engines = [
                _engines.Ours(model, task),
                _engines.Diffusers(model, task),
                _engines.ComfyUI(CHECKPOINT, task),
            ]
            self._race("in process", self._model_name, task, engines)
        self._print("in process", "In one process: the engine, StableDiffusion3Pipeline, KSampler")

    def nano(self, steps: int) -> None:
        """The embedded model against diffusers; ComfyUI's loader does not take its shape."""
        from tests.engines import open_model

        from . import _engines

        path = _output.ROOT / "assets" / "nano" / "sd3-nano.safetensors"
        if not path.is_file():
            print(f"\nThe embedded model is left out: there is no {path}.")
            return
        model = open_model(path, placement=self._placement())
        task = self._task(NANO_SIZE, NANO_SIZE, steps)
        self._race("nano", "sd3-nano", task, [_engines.Ours(model, task), _engines.Diffusers(model, task)])
        self._print("nano", "The embedded model: the engine, StableDiffusion3Pipeline")

    def _placement(self) -> LocalPlacement:
        from sd3_local.pipelines.placement import LocalPlacement

        return LocalPlacement(self._device, self._compute, self._compute)

    def _task(self, width: int, height: int, steps: int) -> Task:
        from ._engines import Task

        return Task(width, height, steps)

    def _race(self, part: str, model: str, task: Task, engines: Sequence[Engine]) -> None:
        from . import _engines

        shots = _engines.race(engines, self._rounds, _output.told)
        ours = [shot.latent for shot in shots[_engines.OURS]]
        for name, all_of_it in shots.items():
            measured = all_of_it[1:]
            steps = [shot.sampling / task.steps for shot in measured]
            totals = [shot.total for shot in measured]
            apart = _engines.difference(ours, [shot.latent for shot in all_of_it])
            self._add(part, model, task, name, steps, totals, apart)

    def _add(
        self, part: str, model: str, task: Task, engine: str, steps: list[float], totals: list[float], apart: float
    ) -> None:
        self.rows.append(
            {
                "part": part,
                "model": model,
                "width": task.width,
                "height": task.height,
                "steps": task.steps,
                "guidance": task.guidance,
                "compute": str(self._compute).removeprefix("torch."),
                "engine": engine,
                "seconds_per_step": statistics.median(steps),
                "seconds_per_picture": statistics.median(totals),
                "latent_difference": apart,
                "rounds": {"seconds_per_step": steps, "seconds_per_picture": totals},
            }
        )

    def _print(self, part: str, title: str) -> None:
        rows = [row for row in self.rows if row["part"] == part]
        columns = {
            "model": lambda row: row["model"],
            "picture": lambda row: f"{row['width']} x {row['height']}, {row['steps']} steps",
            "engine": lambda row: row["engine"],
            "s / step (fastest)": lambda row: _spread(row, "seconds_per_step"),
            "s / picture (fastest)": lambda row: _spread(row, "seconds_per_picture"),
            "latents against ours": lambda row: f"{row['latent_difference']:.1e}",
        }
        print(f"\n{title} ({rows[0]['compute']}, median of {self._rounds}):\n\n{_output.table(rows, columns)}")


def _spread(row: _output.Row, name: str) -> str:
    """The median and, since a busy machine only ever adds time, the fastest round."""
    return f"{_output.seconds(row[name])} ({_output.seconds(min(row['rounds'][name]))})"


if __name__ == "__main__":
    main()
