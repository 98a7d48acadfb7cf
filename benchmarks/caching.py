"""Pictures painted in less time, by the pack's accelerators and by their peers, against the full run of each."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _output

if TYPE_CHECKING:
    from ._caching_methods import Method, Shot, Task

DESCRIPTION = """
Paints the same pictures of the embedded model in full and in less time, one method after the other for every picture:
with fewer steps, with cache-dit, with First Block Cache as published, with ComfyUI's LazyCache and with the pack's
accelerators, each over a sweep of its settings. Prints how much less is computed, how much faster that is, how near to
the full run the pictures are, and how many of them are right. Then what a reused step costs at the published models'
sizes, in time where there is a CUDA device. A run that is stopped with Ctrl-C shows the pictures that it has.
"""

NANO = _output.ROOT / "assets" / "nano" / "sd3-nano.safetensors"
SIZES, QUICK_SIZES = ((128, 128), (160, 128), (192, 192)), ((64, 64),)
STEPS, QUICK_STEPS = 28, 6
PROMPTS, QUICK_PROMPTS = 100, 2
# As in the test that holds the embedded model to its judge; training's own seeds are others.
FIRST_SEED = 1000
TARGETS = (2.0, 3.0)

NOTE = """
FLOPs: matrix products, convolutions and attention of the transformer, of the full run over the method's own (mean of
the pictures). Time: of sampling (median of the pictures). PSNR and SSIM: against the full run's picture. ComfyUI runs
the same weights with the same noise, sigmas and conditioning; LazyCache is compared with ComfyUI's full run, all else
with the pack's. Right: by the judge of the embedded model's world."""


@dataclass(frozen=True)
class Painted:
    """One picture by one setting, compared with its reference's."""

    size: str
    flops: float
    seconds: float
    psnr: float
    ssim: float
    right: bool


def main() -> None:
    options = _output.parser("caching", DESCRIPTION)
    options.add_argument(
        "--prompts", type=int, metavar="N", help=f"pictures, in turn of the {len(SIZES)} sizes (default: {PROMPTS})"
    )
    options.add_argument("--plot", type=Path, metavar="FILE", help="also draw speed against PSNR to FILE, a PNG")
    options.add_argument(
        "--methods", nargs="+", metavar="NAME", help="only methods whose name contains one of these, and full runs"
    )
    options.add_argument(
        "--add",
        type=Path,
        metavar="FILE",
        help="also show the methods of an earlier run of the same pictures, as --json wrote them",
    )
    options.add_argument(
        "--verify", action="store_true", help="only compute reused steps as well, and show how wrong each one was"
    )
    given = options.parse_args()
    earlier = [] if given.add is None else json.loads(given.add.read_text(encoding="utf-8"))["rows"]
    os.environ.update({name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    import torch

    torch.set_num_threads(given.threads)
    steps = QUICK_STEPS if given.quick else STEPS
    pictures = given.prompts or (QUICK_PROMPTS if given.quick else PROMPTS)
    facts = _output.setting(given.threads, "cpu")
    if given.verify:
        from ._caching_methods import Painter
        from ._caching_verify import show as show_errors
        from ._caching_verify import verify

        errors = verify(Painter(NANO), list(tasks(pictures, QUICK_SIZES if given.quick else SIZES, steps)))
        show_errors(errors)
        _output.finish("caching", facts, errors, given.json)
        return
    with tempfile.TemporaryDirectory(prefix="sd3-local-bench-") as folder:
        methods = contenders(Path(folder), steps)
        if given.methods:
            methods = [one for one in methods if _is_full(one) or any(name in one.name for name in given.methods)]
        if given.quick:
            methods = ends(methods)
        rows = race(methods, list(tasks(pictures, QUICK_SIZES if given.quick else SIZES, steps)), given.rounds or 1)
    rows = joined(rows, earlier)
    summary = show(rows)
    if given.plot is not None:
        from ._caching_frontier import frontiers, plot

        plot(frontiers(rows), f"sd3-nano, {rows[0]['pictures']} pictures, {steps} steps", given.plot)
    true_sizes = []
    if not given.quick:
        from ._caching_true_sizes import measure

        true_sizes = measure()
    _output.finish("caching", facts, rows, given.json, summary=summary, true_sizes=true_sizes)


def joined(rows: Sequence[_output.Row], earlier: Sequence[_output.Row]) -> list[_output.Row]:
    """The rows of two runs, each of which has a full run of its own; raises SystemExit where the runs differ in their
    pictures.
    """
    known = {(row["method"], row["setting"]) for row in rows}
    added = [row for row in earlier if (row["method"], row["setting"]) not in known]
    if any(row["pictures"] != rows[0]["pictures"] or row["sizes"].keys() != rows[0]["sizes"].keys() for row in added):
        raise SystemExit(f"The run to be added is not of {rows[0]['pictures']} pictures of the same sizes.")
    return [*rows, *added]


def contenders(folder: Path, steps: int) -> list[Method]:
    """All methods, each engine's full run before what is compared with it."""
    from . import _caching_ours, _caching_peers
    from ._caching_comfyui import ComfyUI
    from ._caching_methods import Painter, fewer_steps, full_run

    painter = Painter(NANO)
    return [
        full_run(painter),
        *fewer_steps(painter, steps),
        *_caching_peers.cache_dit(Painter(NANO)),
        *_caching_peers.first_block_cache(painter),
        *ComfyUI(NANO, painter.model, folder).methods(),
        *_caching_ours.accelerators(painter),
        *_caching_ours.left_out(painter),
    ]


def _is_full(method: Method) -> bool:
    return method.setting == "all steps"


def ends(methods: Sequence[Method]) -> list[Method]:
    """The first and the last setting of each method."""
    named: dict[str, list[Method]] = {}
    for method in methods:
        named.setdefault(method.name, []).append(method)
    return [method for group in named.values() for method in dict.fromkeys((group[0], group[-1]))]


def tasks(count: int, sizes: Sequence[tuple[int, int]], steps: int) -> Iterator[Task]:
    from tests.judge import prompts

    from ._caching_methods import Task

    for index, prompt in enumerate(prompts(count)):
        yield Task(prompt, FIRST_SEED + index, *sizes[index % len(sizes)], steps)


def race(methods: Sequence[Method], pictures: Sequence[Task], rounds: int) -> list[dict[str, Any]]:
    """A row for each method; for each picture one method after the other."""
    painted: dict[Method, list[Painted]] = {method: [] for method in methods}
    # Whatever a method does only once belongs to no picture.
    for method in {method.name: method for method in methods}.values():
        method.paint(pictures[0])
    with suppress(KeyboardInterrupt):
        for index, task in enumerate(pictures, start=1):
            for method, one in zip(methods, compared(methods, task, rounds), strict=True):
                painted[method].append(one)
            _output.told(f"picture {index} of {len(pictures)}, {task.width} x {task.height}: {task.prompt}")
    if not all(painted.values()):
        raise SystemExit("Stopped before a picture was painted by all methods.")
    return [_row(method, painted[method]) for method in methods]


def compared(methods: Sequence[Method], task: Task, rounds: int) -> list[Painted]:
    """`task` by each method, against its reference."""
    shots: dict[str, Shot] = {}
    result = []
    for method in methods:
        tries = [method.paint(task) for _ in range(rounds)]
        shot, seconds = tries[0], statistics.median(one.seconds for one in tries)
        if _is_full(method):
            shots[method.name] = type(shot)(shot.pixels, seconds, shot.flops)
        result.append(_compare(task, shot, seconds, shots[method.reference]))
    return result


def _compare(task: Task, shot: Shot, seconds: float, reference: Shot) -> Painted:
    import torch

    from tests.judge import judge

    from ._caching_measures import psnr, ssim

    image = (shot.pixels * 255).round().to(torch.uint8).numpy()
    return Painted(
        f"{task.width}x{task.height}",
        shot.flops / reference.flops,
        seconds / reference.seconds,
        psnr(shot.pixels, reference.pixels),
        ssim(shot.pixels, reference.pixels),
        judge(image, task.prompt).right,
    )


def _row(method: Method, painted: Sequence[Painted]) -> dict[str, Any]:
    sizes = dict.fromkeys(one.size for one in painted)
    return {
        "method": method.name,
        "setting": method.setting,
        "reference": method.reference,
        **_numbers(painted),
        "sizes": {size: _numbers([one for one in painted if one.size == size]) for size in sizes},
    }


def _numbers(painted: Sequence[Painted]) -> dict[str, Any]:
    return {
        "pictures": len(painted),
        "flops_speedup": 1 / statistics.fmean(one.flops for one in painted),
        "time_speedup": 1 / statistics.median(one.seconds for one in painted),
        "psnr": _spread(one.psnr for one in painted),
        "ssim": _spread(one.ssim for one in painted),
        "right": statistics.fmean(one.right for one in painted),
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    """The median, and the value that a tenth of the pictures fall short of."""
    ordered = sorted(values)
    place = (len(ordered) - 1) / 10
    low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    return {"median": statistics.median(ordered), "worst_decile": low + (place % 1) * (high - low)}


def show(rows: Sequence[_output.Row]) -> list[dict[str, Any]]:
    """Prints the rows, and what each method does at the TARGETS, which it returns."""
    from ._caching_frontier import at, frontiers

    columns = {
        "method": lambda row: row["method"],
        "setting": lambda row: row["setting"],
        "FLOPs": lambda row: f"{row['flops_speedup']:.2f}x",
        "time": lambda row: f"{row['time_speedup']:.2f}x",
        "PSNR (worst tenth)": lambda row: f"{row['psnr']['median']:.1f} ({row['psnr']['worst_decile']:.1f})",
        "SSIM (worst tenth)": lambda row: f"{row['ssim']['median']:.4f} ({row['ssim']['worst_decile']:.4f})",
        "right": lambda row: f"{100 * row['right']:.1f} %",
    }
    print(f"\nThe embedded model, {rows[0]['pictures']} pictures (fewer FLOPs, less time: higher is faster):\n")
    print(_output.table(rows, columns))
    print(NOTE)
    summary = []
    for method, frontier in frontiers(rows).items():
        points = {f"{target:g}x": at(frontier, target) for target in TARGETS}
        summary.append({"method": method} | {key: point and point._asdict() for key, point in points.items()})
    described = {f"at {target:g}x fewer FLOPs": f"{target:g}x" for target in TARGETS}
    columns = {"method": lambda row: row["method"]} | {
        title: lambda row, key=key: _described(row[key]) for title, key in described.items()
    }
    print(f"\nOn the line through each method's best settings (full run: {100 * rows[0]['right']:.1f} % right):\n")
    print(_output.table(summary, columns))
    return summary


def _described(point: dict[str, float] | None) -> str:
    return "not reached" if point is None else f"{point['psnr']:.1f} dB, {100 * point['right']:.1f} % right"


if __name__ == "__main__":
    main()
