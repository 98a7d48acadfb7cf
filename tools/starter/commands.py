"""The starter's commands."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from . import comfyui, demo, environment
from .checkout import Checkout, StarterError, say
from .host import Host, arguments, link_pack

PACK_FOLDER = "sd3-local"
HAS_GPU = """
import torch
print(torch.cuda.is_available() or torch.xpu.is_available() or torch.backends.mps.is_available())
"""


def main(given: Sequence[str], usage: str) -> int:
    """Runs one command and returns the exit status: 0 done, 1 failed, 2 not understood, 130 cancelled."""
    command, *options = given or ["--help"]
    if command in ("-h", "--help", "help"):
        print(usage, end="")
        return 0
    run = COMMANDS.get(command)
    if run is None or (options and command in ("setup", "demo")):
        print(f"{usage}\nNot understood: {' '.join(given)}", file=sys.stderr)
        return 2
    try:
        return run(Checkout(Path(__file__).resolve().parent.parent.parent), options)
    except StarterError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(f"\n{'The disk is full' if full else 'The system refused'}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nCancelled.", file=sys.stderr)
        return 130


def setup(checkout: Checkout, options: Sequence[str] = ()) -> int:
    """Makes what is missing."""
    stop_on_signals()
    started = time.monotonic()
    if missing(checkout):
        with only_one(checkout.work / "setup.lock"):
            # Another start may have done it while this one waited.
            for step in missing(checkout):
                step()
        say(f"Set up in {time.monotonic() - started:.0f} s.")
    elif not options:
        say("Set up already.")
    return 0


def missing(checkout: Checkout) -> list[Callable[[], None]]:
    """What has yet to be done, in order."""
    own = comfyui.own(os.environ)
    requirements = own / "requirements.txt" if own else None
    asked = requirements.read_bytes() if requirements else b""
    packages = environment.fingerprint(checkout.lock.read_bytes(), asked)
    wanted = environment.stamp(checkout.venv, packages, environment.backend(checkout.venv, os.environ))
    todo = environment.left_to_do(checkout.venv, checkout.python, wanted)
    steps: list[Callable[[], None]] = []
    if todo == "make":
        steps.append(lambda: environment.make(checkout, wanted))
    if todo != "nothing":
        steps.append(lambda: environment.install(checkout, requirements, wanted))
    if own is None and not comfyui.is_unpacked(checkout.comfyui_copy):
        steps.append(lambda: comfyui.fetch(checkout))
    return steps


def run_demo(checkout: Checkout, options: Sequence[str]) -> int:
    setup(checkout, ["quiet"])
    host = Host(checkout.python, code(checkout), checkout.work / "comfy", checkout.root, options=device(checkout, []))
    demo.run(checkout, host)
    return 0


def serve(checkout: Checkout, options: Sequence[str]) -> int:
    setup(checkout, ["quiet"])
    base = checkout.work / "comfy"
    link_pack(checkout.root, base / "custom_nodes", PACK_FOLDER)
    command = arguments(code(checkout), base, [*device(checkout, options), *options])
    return foreground([str(checkout.python), *command], os.environ, checkout.root)


def test(checkout: Checkout, options: Sequence[str]) -> int:
    setup(checkout, ["quiet"])
    # Shared machines stall many-threaded torch; whoever sets it himself knows better.
    environ = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
    return foreground([str(checkout.python), "-m", "pytest", *options], environ, checkout.root)


def bench(checkout: Checkout, options: Sequence[str]) -> int:
    files = (checkout.root / "benchmarks").glob("[!_]*.py")
    names = sorted(file.stem for file in files if "\ndef main(" in file.read_text(encoding="utf-8"))
    if not options or options[0] not in names:
        raise StarterError(f"Which benchmark? There are: {', '.join(names) or 'none yet'}.")
    setup(checkout, ["quiet"])
    command = [str(checkout.python), "-m", f"benchmarks.{options[0]}", *options[1:]]
    return foreground(command, os.environ, checkout.root)


COMMANDS: dict[str, Callable[[Checkout, Sequence[str]], int]] = {
    "setup": setup,
    "demo": run_demo,
    "serve": serve,
    "test": test,
    "bench": bench,
}


def code(checkout: Checkout) -> Path:
    """ComfyUI's code: the user's own if he named it, else the copy."""
    return comfyui.own(os.environ) or checkout.comfyui_copy


def device(checkout: Checkout, options: Sequence[str]) -> list[str]:
    """`--cpu` where torch finds no GPU, because ComfyUI refuses to start without one or the other."""
    if "--cpu" in options:
        return []
    answer = subprocess.run([str(checkout.python), "-c", HAS_GPU], capture_output=True, text=True)
    if answer.returncode:
        reason = answer.stderr[-1500:]
        raise StarterError(f"torch does not work in {checkout.venv}; remove that folder and run this again.\n{reason}")
    if answer.stdout.strip() == "True":
        return []
    say("No GPU that torch can use: running on the CPU. (There is one? UV_TORCH_BACKEND=auto python3 run.py setup)")
    return ["--cpu"]


def foreground(command: list[str], environ: Mapping[str, str], folder: Path) -> int:
    """Becomes `command`, so that signals and the exit status are its own; Windows, which cannot, waits for it."""
    sys.stdout.flush()
    os.chdir(folder)
    if os.name != "nt":
        os.execve(command[0], command, dict(environ))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.run(command, env=dict(environ)).returncode


def stop_on_signals() -> None:
    """A polite request to end takes the way of Ctrl-C, so that what was started is stopped too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds `path` locked; waits while another process does. The system lets go of it when the holder ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        if os.name == "nt":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    time.sleep(1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
