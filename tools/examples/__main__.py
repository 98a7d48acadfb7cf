"""Makes the example workflows on the embedded model: `python -m tools.examples [NAME ...]`.

Each is written as the editor saves it, run in a real ComfyUI, and its last picture becomes the thumbnail; all of its
pictures side by side show on the help page of the node that it is about. SD3 Native Accelerator, whose graphs need a
checkpoint, has a picture alone.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.comfy_host import ComfyHost
from tools.pack import ROOT
from tools.starter.workflow import to_prompt

from . import native
from .editor import Graph
from .graphs import EXAMPLES

WORKFLOWS, PAGES = ROOT / "example_workflows", ROOT / "web" / "docs"
HELPED = {
    "nano-image-to-image": "SD3LocalInputs",
    "nano-inpaint": "SD3LocalInputs-mask",
    "nano-outpaint": "SD3LocalOutpaint",
    "nano-lora": "SD3LocalLora",
    "nano-controlnet": "SD3LocalControlNet",
    "nano-ip-adapter": "SD3LocalIPAdapter",
    "nano-face-fix": "SD3LocalFaceFix",
    "nano-accelerator": "SD3LocalAccelerator",
}
"""The picture of the help pages that an example's pictures make."""

NATIVE = "native-accelerator"
"""Makes a picture of a help page and no workflow: ComfyUI's own nodes can't load the embedded model."""

SCALE, GAP, QUALITY = 2, 8, 90


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.examples", description=__doc__)
    known = [*EXAMPLES, NATIVE]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without one")
    names = parser.parse_args().names or known
    if NATIVE in names:
        page = PAGES / "SD3LocalNativeAccelerator.jpg"
        save(native.pictures(), page)
        print(page, flush=True)
    if workflows := [name for name in names if name != NATIVE]:
        with tempfile.TemporaryDirectory() as base, ComfyHost(Path(base)) as host:
            for name in workflows:
                make(host, name)
                print(WORKFLOWS / f"{name}.json", flush=True)


def make(host: ComfyHost, name: str) -> None:
    """Writes one example. Raises SystemExit where it does not run."""
    info = host.object_info()
    graph = Graph(info)
    EXAMPLES[name](graph, name)
    workflow = graph.saved(name)
    run = host.run(to_prompt(workflow, info), timeout=1200)
    if run.status != "success":
        raise SystemExit(f"{name}: {run.error}")
    nodes = sorted((int(key), output["images"]) for key, output in run.outputs.items() if output.get("images"))
    pictures = [Image.open(io.BytesIO(host.view(image))).convert("RGB") for _, images in nodes for image in images]
    (WORKFLOWS / f"{name}.json").write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
    enlarged(pictures[-1]).save(WORKFLOWS / f"{name}.jpg", quality=QUALITY)
    if name in HELPED:
        save(pictures, PAGES / f"{HELPED[name]}.jpg")


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
