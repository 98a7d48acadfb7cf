"""What features cost a step: at weight 0 or outside their window, and LoRAs once they are applied."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    import torch
    from sd3_local.pipelines.materials import Materials
    from sd3_local.pipelines.model import Model

DESCRIPTION = """
Times every step of the same picture on a model with random weights, without any feature and with each one, in turn and
in one process. All but the last rows are features that have nothing to do: at weight 0, or in the steps outside of
their window. What is not a step (reading files, changing weights, encoding guide images) is not in it.
"""

PLAIN = "no feature"
NET, ADAPTER = {"model": "net", "guideImage": "guide"}, {"model": "adapter", "guideImages": ("guide",)}
LORAS = [{"model": f"lora {number}"} for number in range(3)]
CASES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "LoRA at weight 0": {"lora": [{**LORAS[0], "weight": 0.0}]},
    "ControlNet at weight 0": {"controlNet": [{**NET, "weight": 0.0}]},
    "ControlNet outside its window": {"controlNet": [{**NET, "endStep": 1}]},
    "IP-Adapter at weight 0": {"ipAdapters": [{**ADAPTER, "weight": 0.0}]},
    "LoRA outside its stage": {"lora": [{**LORAS[0], "transformer": "high"}]},
    "mask": {"inputs": {"seedImage": "guide", "maskImage": "mask"}, "strength": 1.0},
    "three LoRAs, applied": {"lora": LORAS},
    "one ControlNet of a third of the blocks": {"controlNet": [NET]},
    "one IP-Adapter": {"ipAdapters": [ADAPTER]},
}
"""Case -> fields of the request. The mask is no idle feature, but costs next to nothing."""

FREE = 1
"""First steps that are not counted: a window ends there, and memory is touched for the first time."""


def main() -> None:
    options = _output.parser("features", DESCRIPTION)
    options.add_argument("--steps", type=int, metavar="N", help="steps of a picture")
    given = options.parse_args()
    os.environ.update({name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    import torch

    torch.set_num_threads(given.threads)
    gpu = torch.cuda.is_available() and not given.quick
    blocks, side, steps, rounds = (2, 64, 4, 1) if given.quick else (24, 1024, 20, 5) if gpu else (6, 256, 12, 5)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sd3-local-bench-") as folder:
        for stored in ("as computed", "fp8"):
            model, materials = prepare(Path(folder) / stored, blocks, side, gpu, stored == "fp8")
            cases = (
                CASES if stored == "as computed" else {name: CASES[name] for name in (PLAIN, "three LoRAs, applied")}
            )
            rows += race(model, materials, cases, side, given.steps or steps, given.rounds or rounds, stored)
    show(rows, f"{blocks} blocks, width {64 * blocks}, {side} x {side}")
    device = torch.cuda.get_device_name() if gpu else "cpu"
    _output.finish("features", _output.setting(given.threads, device), rows, given.json)


def prepare(folder: Path, blocks: int, side: int, gpu: bool, fp8: bool) -> tuple[Model, Materials]:
    """A random model with a net, an adapter and three LoRAs of rank 32 on all attentions and feed-forward layers."""
    import torch
    from sd3_local.pipelines.controlnet import ControlNetFile
    from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
    from sd3_local.pipelines.materials import Materials
    from sd3_local.pipelines.placement import LocalPlacement

    from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
    from tests.comfy_inside import import_comfy
    from tests.controlnets import make_net, write_net
    from tests.engines import open_model
    from tests.ip_adapters import make_adapter, make_vision, write_adapter, write_vision

    folder.mkdir()
    import_comfy(folder)
    width = 64 * blocks
    device, compute = (torch.device("cuda"), torch.bfloat16) if gpu else (torch.device("cpu"), torch.float32)
    transformer = TransformerSpec(blocks, width, context=4096, pooled=2048, table=192)
    checkpoint = CheckpointSpec(transformer, VAESpec(), clip_l=ClipSpec(768, 3), clip_g=ClipSpec(1280, 3, 1280))
    placement = LocalPlacement(device, compute, torch.float8_e4m3fn if fp8 else None)
    model = open_model(write_checkpoint(folder / "model.safetensors", checkpoint, compute), placement)
    net = make_net(max(1, blocks // 3), width=width, table=192)
    encoder = VisionFile(write_vision(folder / "vision.safetensors", make_vision()), placement)
    adapter = write_adapter(folder / "adapter.safetensors", make_adapter(blocks, width))
    from sd3_local.host.lora import parse_adapters
    from sd3_local.pipelines.lora import LoraFile

    files = [write_lora(folder / f"{number}.safetensors", blocks, width, number) for number in range(3)]
    pictures = {
        "guide": torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0)),
        "mask": (torch.arange(side) < side // 2).float().expand(1, side, side)[..., None],
    }
    return model, Materials(
        pictures=pictures,
        loras={f"lora {number}": LoraFile(file, parse_adapters) for number, file in enumerate(files)},
        control_nets={"net": ControlNetFile(write_net(folder / "net.safetensors", net), placement)},
        ip_adapters={"adapter": IPAdapterFile(adapter, encoder, placement)},
    )


def write_lora(path: Path, blocks: int, width: int, seed: int, rank: int = 32) -> Path:
    """A LoRA in diffusers' form."""
    import torch
    from safetensors.torch import save_file

    rng = torch.Generator().manual_seed(seed)
    sizes = {"ff.net.0.proj": (4 * width, width), "ff.net.2": (width, 4 * width)}
    sizes |= {f"attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v", "to_out.0")}
    tensors = {}
    for block in range(blocks):
        for layer, (rows, columns) in sizes.items():
            key = f"transformer.transformer_blocks.{block}.{layer}"
            tensors[f"{key}.lora_B.weight"] = torch.randn(rows, rank, generator=rng) * 0.02
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, columns, generator=rng) * 0.02
    save_file(tensors, path)
    return path


class Steps:
    """Remembers when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def check(self) -> None:
        pass

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        if x0.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Of each step that counts, from the end of the one before; the second half of the run, where a stage of a
        LoRA is over too.
        """
        first = max(FREE, (len(self.ends) + 1) // 2)
        return [end - start for start, end in zip(self.ends[first:-1], self.ends[first + 1 :], strict=True)]


def race(
    model: Model,
    materials: Materials,
    cases: Mapping[str, Mapping[str, Any]],
    side: int,
    steps: int,
    rounds: int,
    stored: str,
) -> list[dict[str, Any]]:
    """A row for each case; one case after the other in every round, after one round that does not count."""
    from sd3_local.pipelines.generate import generate

    from tests.engines import request

    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, fields in cases.items():
            asked = request(width=side, height=side, steps=steps, CFGScale=4.5, scheduler="DDIM", **fields)
            watch = Steps()
            generate(asked, model, watch, materials)
            if turn:
                times[name] += watch.seconds
        _output.told(f"weights {stored}, round {turn} of {rounds}")
    plain = times[PLAIN]
    return [
        {
            "weights": stored,
            "case": name,
            "fastest": min(taken),
            "median": statistics.median(taken),
            "fastest_cost": min(taken) / min(plain) - 1,
            "median_cost": statistics.median(taken) / statistics.median(plain) - 1,
            "seconds": taken,
        }
        for name, taken in times.items()
    ]


def show(rows: list[dict[str, Any]], what: str) -> None:
    columns = {
        "weights": lambda row: row["weights"],
        "feature": lambda row: row["case"],
        "s/step, fastest": lambda row: _output.seconds(row["fastest"]),
        "s/step, median": lambda row: _output.seconds(row["median"]),
        "cost, fastest": lambda row: f"{row['fastest_cost']:+.1%}",
        "cost, median": lambda row: f"{row['median_cost']:+.1%}",
    }
    print(f"\nSeconds per step with guidance ({what}), each feature beside none:\n")
    print(_output.table(rows, columns))


if __name__ == "__main__":
    main()
