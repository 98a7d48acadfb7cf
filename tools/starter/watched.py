"""Runs a script that ends when the program which started it is gone, however that came about.

Started as `python watched.py SCRIPT [arguments]` with a pipe on standard input, which closes when its other end dies.
"""

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    # os.read takes no lock that a finishing interpreter would wait for.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
