"""The published clients of the hosted API, unmodified and in pinned versions, and how their programs are run.

None of them is a need of the pack's own, so none is in the environment that the tests run in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import installed

HERE = Path(__file__).resolve().parent


def npm_packages() -> Path:
    return installed.npm_packages(HERE / "package-lock.json")


def run_python(name: str, program: str, given: Mapping[str, Any]) -> Any:
    """What a program of this folder prints as JSON, run with the packages of `name`.txt and `given` on its input."""
    packages = installed.python_packages(HERE / f"{name}.txt")
    return _run([sys.executable, str(HERE / program)], given, {"PYTHONPATH": str(packages)})


def run_node(program: str, given: Mapping[str, Any], module: Path) -> Any:
    """The same for a program in JavaScript, which imports the client from `module`."""
    return _run([*installed.node(), str(HERE / program)], {**given, "module": module.as_uri()}, {})


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
