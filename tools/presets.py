"""Gives the shipped presets their small pictures: `python -m tools.presets [NAME ...]`.

Each is what sd3-nano draws with the preset's own settings, at a size that suits it; of an accelerator's levels it is
the drawing of its decisions; and those about faces and masks have the picture of their example workflow.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tests.comfy_host import ComfyHost
from tests.graphs import text_to_image
from tools.examples.__main__ import shown
from tools.pack import ROOT, import_pack

import_pack()
from sd3_local.pipelines.fields import specs  # noqa: E402
from sd3_local.pipelines.request import AcceleratorOptions  # noqa: E402

PRESETS = ROOT / "presets"
SIDE, QUALITY = 96, 80

PROMPTS = {
    "quality": "a red circle on the left, blue background",
    "fast": "a yellow triangle on the right, purple background",
    "drafts": "a green square on the left, white background",
    "typography": "a red cross on the right, white background",
}
OF_EXAMPLES = {"portraits": "SD3 face fix", "inpaint": "SD3 inpaint"}
SMALL = {"width": 192, "height": 192, "seed": 3, "numberResults": 1}
"""What sd3-nano can draw, whatever size the preset is for."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.presets", description=__doc__)
    known = sorted(path.stem for path in PRESETS.glob("*.json"))
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*known, []], help=f"of {', '.join(known)}")
    names = parser.parse_args().names or known
    with tempfile.TemporaryDirectory() as folder, ComfyHost(Path(folder)) as host:
        for path in (PRESETS / f"{name}.json" for name in names):
            preset = json.loads(path.read_text(encoding="utf-8"))
            preset["thumbnail"] = thumbnail(picture(host, path.stem, preset))
            nodes = preset.pop("nodes")
            path.write_text(json.dumps({**preset, "nodes": nodes}, indent=1) + "\n", encoding="utf-8")
            print(path.name)


def picture(host: ComfyHost, name: str, preset: dict[str, Any]) -> Image.Image:
    """What stands for a preset."""
    if name in OF_EXAMPLES:
        return Image.open(ROOT / "example_workflows" / f"{OF_EXAMPLES[name]}.jpg")
    values = {one["node"]: one["values"] for one in preset["nodes"]}
    prompt = PROMPTS.get(name, PROMPTS["quality"])
    graph = text_to_image(positivePrompt=prompt, **{"steps": 28, **values.get("SD3LocalSampler", {}), **SMALL})
    accelerator = values.get("SD3LocalAccelerator")
    if accelerator is not None:
        graph["7"] = {"class_type": "SD3LocalAccelerator", "inputs": {**unset(), **accelerator}}
        graph["3"]["inputs"]["acceleratorOptions"] = ["7", 0]
    run = host.run(graph)
    if run.status != "success":
        raise RuntimeError(run.error)
    # The sampler shows the drawing of what its accelerator decided.
    drawn = shown(run.outputs.get("3", {})) if accelerator is not None else []
    return Image.open(io.BytesIO(host.view([*drawn, *run.images][0])))


def unset() -> dict[str, Any]:
    """The accelerator's values where a preset says nothing."""
    return {name: field.unset for name, field in specs(AcceleratorOptions).items()}


def thumbnail(picture: Image.Image) -> str:
    """A square data URI."""
    out = io.BytesIO()
    ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE)).save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


if __name__ == "__main__":
    main()
