"""Seconds and memory from a checkpoint file to the first step: the pack, ComfyUI's loader, diffusers."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    import torch

    from tests.checkpoints import CheckpointSpec

DESCRIPTION = """
Writes a checkpoint of SD3 Medium's true size with random fp16 weights (4.3 GB, removed afterwards) and runs one
unguided step of a small picture from it on the CPU in float32: the pack's nodes, ComfyUI's loader, diffusers'
from_single_file. Each runs in a process of its own, in turn, with the file in the system's cache.
"""

FULL_SIDE, QUICK_SIDE = 256, 64
ROUNDS, QUICK_ROUNDS = 3, 1
# Beside the float32 weights: Python, torch, ComfyUI and the activations.
REST_OF_MEMORY = 2 * 10**9
CHUNK = 2**24

NOTE = """
s to first step: imports, load and first step, as in a process where the host (torch; for all but diffusers ComfyUI
too, and with it transformers) runs already. The pack imports diffusers only when it loads, while it reads the weights:
that import is in its s load. Private memory: without pages of the mapped file, which the system can drop and read
again."""


def main() -> None:
    given = _output.parser("loading", DESCRIPTION).parse_args()
    os.environ.update({name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    from tests.checkpoints import SD3_MEDIUM_FILE, CheckpointSpec, TransformerSpec, VAESpec

    tiny = CheckpointSpec(TransformerSpec(2, 128, context=4096, pooled=2048), VAESpec())
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    with tempfile.TemporaryDirectory(prefix="sd3-local-bench-") as folder:
        rows = race(Path(folder), tiny if given.quick else SD3_MEDIUM_FILE, given.quick, rounds)
    show(rows, rounds)
    _output.finish("loading", _output.setting(given.threads, "cpu"), rows, given.json)


def race(folder: Path, spec: CheckpointSpec, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender; one contender after the other in every round."""
    import torch

    from tests.checkpoints import write_checkpoint

    from ._engines import difference
    from ._first_step import CONTENDERS

    numbers = sum(math.prod(shape) for shape in spec.shapes().values())
    check_room(folder, numbers)
    _output.told(f"Writing a file of {numbers * torch.float16.itemsize / 1e9:.2f} GB ...")
    file = write_checkpoint(folder / "model.safetensors", spec, torch.float16)
    write_config(file, folder / "config")
    runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name in CONTENDERS}
    latents: dict[str, list[torch.Tensor]] = {name: [] for name in CONTENDERS}
    for turn in range(1, rounds + 1):
        for name in CONTENDERS:
            read_once(file)
            run = first_step(name, file, folder, QUICK_SIDE if quick else FULL_SIDE)
            runs[name].append(run)
            latents[name].append(torch.load(folder / "latent.pt"))
            _output.told(f"{name}, round {turn}: {sum(run['seconds'].values()):.1f} s")
    ours = latents[next(iter(CONTENDERS))]
    return [_row(name, runs[name], difference(ours, latents[name])) for name in CONTENDERS]


def _row(name: str, runs: list[Mapping[str, Any]], apart: float) -> dict[str, Any]:
    """Medians of seconds; of memory the most that any round took."""
    seconds = {part: statistics.median(run["seconds"][part] for run in runs) for part in runs[0]["seconds"]}
    privates = [run["private_gib"] for run in runs]
    to_first_step = statistics.median(sum(run["seconds"].values()) - run["seconds"]["import_host"] for run in runs)
    return {
        "contender": name,
        "seconds": seconds,
        "seconds_to_first_step": to_first_step,
        "private_gib": None if None in privates else max(privates),
        "resident_gib": max(run["resident_gib"] for run in runs),
        "latent_difference": apart,
        "rounds": runs,
    }


def show(rows: list[dict[str, Any]], rounds: int) -> None:
    columns = {
        "contender": lambda row: row["contender"],
        "s host": lambda row: _output.seconds(row["seconds"]["import_host"]),
        "s imports": lambda row: _output.seconds(row["seconds"]["import_own"]),
        "s load": lambda row: _output.seconds(row["seconds"]["load"]),
        "s first step": lambda row: _output.seconds(row["seconds"]["step"]),
        "s to first step": lambda row: _output.seconds(row["seconds_to_first_step"]),
        "GiB private": lambda row: "-" if row["private_gib"] is None else f"{row['private_gib']:.2f}",
        "GiB resident": lambda row: f"{row['resident_gib']:.2f}",
        "latents against ours": lambda row: f"{row['latent_difference']:.1e}",
    }
    print(f"\nFrom file to first step (float32 on the CPU, median of {rounds}, most memory of any):\n")
    print(_output.table(rows, columns))
    print(NOTE)


def check_room(folder: Path, numbers: int) -> None:
    """Ends the program where disk or memory would not do for so many weights."""
    import psutil

    disk, memory = 1.05 * 2 * numbers, 4 * numbers + REST_OF_MEMORY
    if shutil.disk_usage(folder).free < disk:
        raise SystemExit(f"{folder} has no room for a file of {disk / 1e9:.1f} GB; set TMPDIR to a larger folder.")
    if psutil.virtual_memory().available < memory:
        raise SystemExit(f"The contenders need {memory / 1e9:.1f} GB of free memory each, and there is less.")


def write_config(file: Path, config: Path) -> None:
    """The folder with the configuration that `from_single_file` would fetch from a model hub."""
    import torch
    from diffusers import SD3Transformer2DModel
    from sd3_local.pipelines.loading import ModelFiles, inspect_model

    shape = inspect_model(ModelFiles(file)).transformer.shape
    with torch.device("meta"):
        module = SD3Transformer2DModel(
            num_layers=shape.blocks,
            num_attention_heads=shape.width // 64,
            attention_head_dim=64,
            caption_projection_dim=shape.width,
            joint_attention_dim=shape.context_width,
            pooled_projection_dim=shape.pooled_width,
            pos_embed_max_size=shape.table,
        )
    module.save_config(config)


def first_step(name: str, file: Path, folder: Path, side: int) -> Mapping[str, Any]:
    """What the contender `name` says of its run in a fresh process."""
    paths = {"file": file, "config": folder / "config", "base": folder / "comfy", "latent": folder / "latent.pt"}
    options = [f"--{key}={path}" for key, path in paths.items()]
    command = [sys.executable, "-m", "benchmarks._first_step", name, *options, f"--side={side}"]
    run = subprocess.run(command, cwd=_output.ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name} did not come to its first step:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def read_once(file: Path) -> None:
    """Brings the file into the system's cache, so that nobody's disk is measured."""
    with file.open("rb") as opened:
        while opened.read(CHUNK):
            pass


if __name__ == "__main__":
    main()
