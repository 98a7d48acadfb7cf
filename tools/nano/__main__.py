"""Makes sd3-nano and its add-ons: `python -m tools.nano [--stage ...] [--work DIR] [--minutes N]`.

Without `--stage` it runs all of them in turn and takes about three and a half hours on two CPU cores.
A training that was stopped goes on where it was. The add-ons are made for the model in `--target`, beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.pack import ROOT

from . import edges, export, face, measure, measure_addons, reference, stripes, text, transformer, vae, vision
from .base import open_base

# Minutes of training where none are given.
MINUTES = {"vae": 12.0, "text": 1.5, "transformer": 70.0}
MINUTES |= {"stripes": 9.0, "edges": 22.0, "vision": 3.0, "reference": 22.0, "face": 12.0}
MODEL_STAGES = ("vae", "text", "cache", "transformer", "export", "judge")
ADDON_STAGES = ("stripes", "edges", "vision", "reference", "face", "judge-addons")
STAGES = MODEL_STAGES + ADDON_STAGES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.nano", description=__doc__)
    parser.add_argument("--stage", choices=STAGES, action="append", help="run only this stage (may be repeated)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work" / "nano", help="where checkpoints and caches are kept"
    )
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder of CLIP's tokenizer: ComfyUI's comfy/sd1_tokenizer"
    )
    parser.add_argument("--minutes", type=float, help="training time of each stage that is run")
    parser.add_argument("--pictures", type=int, default=14336, help="pictures in the cache of latents")
    parser.add_argument("--target", type=Path, default=ROOT / "assets" / "nano" / "sd3-nano.safetensors")
    parser.add_argument("--prompts", type=int, default=200, help="pictures to judge")
    parser.add_argument("--guidance", type=float, default=5.0, help="CFG scale of the judged pictures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    for stage in given.stage or STAGES:
        minutes = given.minutes or MINUTES.get(stage, 0)
        (run_model if stage in MODEL_STAGES else run_addon)(stage, given, minutes)


def run_model(stage: str, given: argparse.Namespace, minutes: float) -> None:
    """A stage of the model itself, from checkpoint to checkpoint in the work folder."""
    if stage == "vae":
        vae.train(given.work, minutes)
    elif stage == "text":
        text.train(given.work, given.tokenizer, minutes)
    elif stage == "cache":
        text.cache(given.work, given.tokenizer)
        vae.cache(given.work, given.pictures)
    elif stage == "transformer":
        transformer.train(given.work, minutes)
    elif stage == "export":
        print(f"{given.target}: {export.export(given.work, given.target)} bytes")
    elif stage == "judge":
        measure.measure_vae(given.work, min(given.prompts, 64))
        measure.measure(given.work, given.tokenizer, given.prompts, given.guidance)


def run_addon(stage: str, given: argparse.Namespace, minutes: float) -> None:
    """A stage of an add-on, which learns from and is tried on a fresh copy of the finished model."""

    def base():
        return open_base(given.target, given.tokenizer)

    def file(name: str) -> Path:
        return given.target.with_name(name)

    lora, net, adapter = (file(f"nano-{name}.safetensors") for name in ("stripes", "edges", "reference"))
    eyes, detector = file("nano-vision.safetensors"), file("nano-face.pt")
    if stage == "stripes":
        stripes.train(base(), given.work, lora, minutes)
    elif stage == "edges":
        edges.train(base(), given.work, net, minutes)
    elif stage == "vision":
        vision.train(given.work, eyes, minutes)
    elif stage == "reference":
        reference.train(base(), given.work, eyes, adapter, minutes)
    elif stage == "face":
        face.train(base(), given.work, detector, minutes)
    elif stage == "judge-addons":
        count, guidance = min(given.prompts, 100), given.guidance
        measure_addons.measure_stripes(base(), lora, given.work, count, guidance)
        measure_addons.measure_edges(base(), net, given.work, count, guidance)
        measure_addons.measure_reference(base(), eyes, adapter, given.work, count, guidance)
        face.measure(detector, given.work, 3 * count)


if __name__ == "__main__":
    main()
