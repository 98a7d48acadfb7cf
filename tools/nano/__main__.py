"""Makes sd3-nano: `python -m tools.nano [--stage ...] [--work DIR] [--minutes N]`.

Without `--stage` it runs all of them in turn and takes about two hours on two CPU cores.
A training that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.pack import ROOT

from . import export, measure, text, transformer, vae

# Minutes of training where none are given.
MINUTES = {"vae": 12.0, "text": 1.5, "transformer": 70.0}
STAGES = ("vae", "text", "cache", "transformer", "export", "judge")


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


if __name__ == "__main__":
    main()
