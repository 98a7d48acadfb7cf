"""Makes the example workflows: `python -m tools.examples [NAME ...]`.

Each is written as the editor saves it, run in a real ComfyUI, and its last picture becomes the thumbnail; all of its
pictures side by side show on the help page of the node that it is about. The hosted API's example requests, which need
a checkpoint, have their graph as thumbnail, and SD3 Native Accelerator a picture alone. Blueprints of subgraphs are
written too.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.comfy_host import ComfyHost
from tools.pack import ROOT
from tools.starter.workflow import to_prompt

from . import native
from .blueprints import BLUEPRINTS
from .diagram import diagram
from .editor import Graph
from .graphs import EXAMPLES
from .requests import REQUESTS, request

WORKFLOWS, PAGES, SUBGRAPHS = ROOT / "example_workflows", ROOT / "web" / "docs", ROOT / "subgraphs"
HELPED = {
    "SD3 image to image": "SD3LocalInputs",
    "SD3 inpaint": "SD3LocalInputs-mask",
    "SD3 outpaint": "SD3LocalOutpaint",
    "SD3 LoRA": "SD3LocalLora",
    "SD3 ControlNet": "SD3LocalControlNet",
    "SD3 IP-Adapter": "SD3LocalIPAdapter",
    "SD3 face fix": "SD3LocalFaceFix",
    "SD3 accelerator": "SD3LocalAccelerator",
}
"""The picture of the help pages that an example's pictures make."""

NATIVE = "native-accelerator"
"""Makes a picture of a help page and no workflow: ComfyUI's own nodes can't load the embedded model."""

SCALE, GAP, QUALITY = 2, 8, 90


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.examples", description=__doc__)
    known = [*EXAMPLES, *REQUESTS, *BLUEPRINTS, NATIVE]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without one")
    names = list(dict.fromkeys(parser.parse_args().names or known))
    if unknown := set(names) - set(known):
        parser.error(f"no example is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if NATIVE in names:
        page = PAGES / "SD3LocalNativeAccelerator.jpg"
        save(native.pictures(), page)
        print(page, flush=True)
    if of_a_host := [name for name in names if name != NATIVE]:
        with tempfile.TemporaryDirectory() as base, ComfyHost(Path(base)) as host:
            for name in of_a_host:
                make(host, name)
                print(name, flush=True)


def make(host: ComfyHost, name: str) -> None:
    """Writes the workflow, or the blueprint, that is called `name`."""
    info = host.object_info()
    if name in EXAMPLES:
        graph = Graph(info)
        EXAMPLES[name](graph, name)
        pictures = painted(host, name, workflow := graph.saved(name), info)
        write(workflow, WORKFLOWS / f"{name}.json")
        enlarged(pictures[-1]).save(WORKFLOWS / f"{name}.jpg", quality=QUALITY)
        if name in HELPED:
            save(pictures, PAGES / f"{HELPED[name]}.jpg")
    if name in REQUESTS:
        graph = Graph(info)
        request(graph, name)
        write(workflow := graph.saved(name), WORKFLOWS / f"{name}.json")
        given = REQUESTS[name]
        caption = f"{given['width']} x {given['height']}, {given['steps']} steps, SD3 Medium"
        diagram(workflow, given["positivePrompt"], caption).save(WORKFLOWS / f"{name}.jpg", quality=QUALITY)
    if name in BLUEPRINTS:
        write(BLUEPRINTS[name](Graph(info), name), SUBGRAPHS / f"{name}.json")


def painted(host: ComfyHost, name: str, workflow: Mapping[str, Any], info: Mapping[str, Any]) -> list[Image.Image]:
    """The pictures that a workflow shows, in the order of its nodes. Raises SystemExit where it does not run."""
    run = host.run(to_prompt(workflow, info), timeout=1200)
    if run.status != "success":
        raise SystemExit(f"{name}: {run.error}")
    nodes = sorted((int(key), shown(output)) for key, output in run.outputs.items())
    return [Image.open(io.BytesIO(host.view(image))).convert("RGB") for _, images in nodes for image in images]


def shown(output: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The pictures that a node shows: its own, and the sampler's drawings."""
    drawings = [file for summary in output.get("sd3local_summary", ()) for file in summary["drawings"]]
    return [*output.get("images", ()), *drawings]


def write(graph: Mapping[str, Any], file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(graph, indent=1) + "\n", encoding="utf-8")


def save(pictures: Sequence[Image.Image], page: Path) -> None:
    """All of them as the picture of a help page."""
    side_by_side([enlarged(picture) for picture in pictures]).save(page, quality=QUALITY)


def enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.BICUBIC)


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """In one row on white, with a gap between them."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


if __name__ == "__main__":
    main()
