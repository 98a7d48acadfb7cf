"""The best that each method does at a cost: a table's rows to curves, and the picture of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ._output import Row

LEAST_SPEEDUP = 1.02


class Point(NamedTuple):
    """FLOPs of the full run over a setting's own, median PSNR in dB, and the share of right pictures."""

    speedup: float
    psnr: float
    right: float


def frontiers(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Method -> those of its points that no other one beats in both speed and PSNR, from the slowest to the fastest.

    A setting that saves nothing is no point: a line from it would promise more than the method keeps.
    """
    points: dict[str, list[Point]] = {}
    for row in rows:
        if row["flops_speedup"] >= LEAST_SPEEDUP:
            points.setdefault(row["method"], []).append(
                Point(row["flops_speedup"], row["psnr"]["median"], row["right"])
            )
    return {method: _best(given) for method, given in points.items()}


def _best(points: Sequence[Point]) -> list[Point]:
    best: list[Point] = []
    for point in sorted(points, reverse=True):
        if not best or point.psnr > best[-1].psnr:
            best.append(point)
    return best[::-1]


def at(frontier: Sequence[Point], speedup: float) -> Point | None:
    """What a method does at `speedup`: between the two points around it, on a straight line; what its slowest one does
    where even that is faster; None where none is so fast.
    """
    if frontier[-1].speedup < speedup:
        return None
    if frontier[0].speedup >= speedup:
        return frontier[0]
    index = next(index for index, point in enumerate(frontier) if point.speedup >= speedup)
    low, high = frontier[index - 1], frontier[index]
    share = (speedup - low.speedup) / (high.speedup - low.speedup)
    return Point(*(one + share * (other - one) for one, other in zip(low, high, strict=True)))


def plot(curves: Mapping[str, Sequence[Point]], title: str, file: Path) -> None:
    """A PNG of speed against PSNR, a curve for each method."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    markers, colours = "osD^vPX*<>hp", colormaps["tab20"].colors[::2] + colormaps["tab20"].colors[1::2]
    for index, (method, points) in enumerate(curves.items()):
        # Ours as drawn lines, with a piece left out as dots; peers dashed.
        ours, without = method.startswith("SD3 Local"), " without " in method
        axes.plot(
            [point.speedup for point in points],
            [point.psnr for point in points],
            marker=markers[index % len(markers)],
            color=colours[index % len(colours)],
            linewidth=2.4 if ours and not without else 1.2,
            linestyle=":" if without else "-" if ours else "--",
            label=method,
        )
    axes.set_title(title)
    axes.set_xlabel("speed: FLOPs of the full run / FLOPs (x)")
    axes.set_ylabel("median PSNR against the full run (dB)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(file, dpi=130)
