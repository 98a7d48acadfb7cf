"""Makes and fills `.venv`, and knows when there is nothing to do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkout import Checkout, StarterError, say

UV = "uv==0.13.9"
STAMP = "sd3-local.json"
# A GPU build of torch with its libraries, and room to unpack it.
NEEDED_BYTES = 10 * 2**30
# ComfyUI's own requirements leave these open; a newer one would be another build than the rest is locked for.
KEPT = ("torch", "torchvision", "torchaudio")


def fingerprint(lock: bytes, requirements: bytes) -> str:
    """What the packages depend on: the lock, and the requirements of the user's own ComfyUI."""
    digest = hashlib.sha256()
    for part in (lock, requirements):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def stamp(folder: Path, packages: str | None, torch: str) -> dict[str, Any]:
    """What an environment says of itself: its Python, its place, its kind of torch, what its packages were made from.

    `packages` is None while it is being filled.
    """
    return {"python": "{}.{}".format(*sys.version_info), "folder": str(folder), "torch": torch, "packages": packages}


def backend(venv: Path, environ: Mapping[str, str]) -> str:
    """The kind of torch to install, as uv names them: the one asked for now, else the one asked for before."""
    try:
        before = json.loads((venv / STAMP).read_text(encoding="utf-8"))["torch"]
    except (OSError, ValueError, KeyError):
        before = ""
    return environ.get("UV_TORCH_BACKEND") or before


def left_to_do(venv: Path, python: Path, wanted: Mapping[str, Any]) -> str:
    """`nothing`, `install` (the packages differ) or `make` (there is no environment, or none that can be trusted).

    An environment without a stamp is the user's own: it is filled, but never removed. Raises StarterError when it
    belongs to another Python.
    """
    if not python.exists():
        return "make"
    try:
        found = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        version = own_version(venv)
        if version != wanted["python"]:
            raise StarterError(
                f"{venv} was not made by this starter, and for Python {version or '(unknown)'}; this is "
                f"{wanted['python']}. Remove that folder, or start with the Python it was made for."
            ) from None
        return "install"
    except ValueError:
        return "make"
    if found == wanted:
        return "nothing"
    same = all(found.get(key) == wanted[key] for key in ("python", "folder", "torch"))
    return "install" if same and found.get("packages") else "make"


def own_version(venv: Path) -> str | None:
    """The `major.minor` that `pyvenv.cfg` names."""
    try:
        text = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", text, re.MULTILINE)
    return match.group(1) if match else None


def make(checkout: Checkout, wanted: Mapping[str, Any]) -> None:
    """A new, empty environment with pip in it, and a stamp that says it is unfinished."""
    if Path(sys.prefix).resolve() == checkout.venv.resolve():
        raise StarterError(f"{checkout.venv} must be made anew, and not by itself: start with the system's own Python.")
    if checkout.venv.exists():
        say("Removing the old .venv ...")
        shutil.rmtree(checkout.venv)
    say(f"Making .venv with Python {sys.version.split()[0]} ...")
    checkout.venv.mkdir(parents=True)
    write_stamp(checkout, {**wanted, "packages": None})
    if importlib.util.find_spec("ensurepip"):
        command = [sys.executable, "-m", "venv", str(checkout.venv)]
    elif uv := shutil.which("uv"):
        command = [uv, "venv", "--quiet", "--seed", "--allow-existing", "--python", sys.executable, str(checkout.venv)]
    else:
        raise StarterError(
            "This Python cannot make virtual environments (it has no ensurepip). On Debian and Ubuntu: "
            f"sudo apt install python3-venv (or python{sys.version_info[0]}.{sys.version_info[1]}-venv). "
            "Or put `uv` on the PATH."
        )
    if subprocess.run(command).returncode:
        raise StarterError(f"The virtual environment could not be made (the reason is above): {' '.join(command)}")


def install(checkout: Checkout, requirements: Path | None, wanted: Mapping[str, Any]) -> None:
    """Installs the lock, then the user's own ComfyUI's `requirements`, and stamps the environment as done.

    Raises StarterError when neither uv nor pip can install them.
    """
    if (checkout.venv / STAMP).exists():
        write_stamp(checkout, {**wanted, "packages": None})
    installer = Installer(checkout, wanted["torch"])
    say("Installing the locked packages (the first time this takes some minutes and several GB) ...")
    installer.install(["-r", str(checkout.lock)])
    if requirements is not None:
        say(f"Installing what {requirements} asks for ...")
        with tempfile.TemporaryDirectory() as scratch:
            kept = Path(scratch) / "kept.txt"
            kept.write_text("\n".join(locked(checkout.lock, KEPT)) + "\n", encoding="utf-8")
            installer.install(["-r", str(requirements), "-c", str(kept)])
    write_stamp(checkout, wanted)


def locked(lock: Path, names: Sequence[str]) -> list[str]:
    """The lock's lines for `names`."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.split(r"[=<>\s;]", line, maxsplit=1)[0] in names]


def write_stamp(checkout: Checkout, content: Mapping[str, Any]) -> None:
    new = checkout.venv / (STAMP + ".new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(checkout.venv / STAMP)


class Installer:
    """uv, which is several times faster, and pip where uv is not to be had or does not get through."""

    def __init__(self, checkout: Checkout, torch: str):
        self.checkout = checkout
        self.torch = torch
        self.pip = [str(checkout.python), "-m", "pip", "--disable-pip-version-check"]
        # An environment of the user's own may have been made without pip.
        if subprocess.run([*self.pip, "--version"], capture_output=True).returncode:
            subprocess.run([str(checkout.python), "-m", "ensurepip"], capture_output=True)
        found = subprocess.run([*self.pip, "install", "--quiet", UV]).returncode == 0
        self.uv = [str(checkout.python), "-m", "uv"] if found else None

    def install(self, arguments: Sequence[str]) -> None:
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        if self.uv:
            command = [*self.uv, "pip", "install", *quiet, "--python", str(self.checkout.python), *arguments]
            if subprocess.run(command, env=self.environment()).returncode == 0:
                return
            self.refuse_full_disk()
            say("uv did not get through; trying pip ...")
        if subprocess.run([*self.pip, "install", *quiet, *arguments]).returncode:
            self.refuse_full_disk()
            raise StarterError(
                "The packages could not be installed; the reason is above. Without a network, or without a registry "
                "that has them, nothing can be set up. The next run starts over by itself."
            )

    def environment(self) -> dict[str, str]:
        """Ours, with the registry that pip is configured for: uv does not read pip's configuration."""
        environ = dict(os.environ)
        listed = subprocess.run([*self.pip, "config", "list"], capture_output=True, text=True).stdout
        found = re.findall(r"^\S*\.index-url='(.+)'$", listed, re.MULTILINE)
        if found:
            environ.setdefault("UV_DEFAULT_INDEX", found[-1])
        if self.torch:
            environ["UV_TORCH_BACKEND"] = self.torch
        return environ

    def refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.checkout.venv).free
        if free < 2**29:
            raise StarterError(
                f"The disk of {self.checkout.venv} is full ({free / 2**20:.0f} MB free). "
                f"About {NEEDED_BYTES / 2**30:.0f} GB are needed; make room and run this again."
            )
