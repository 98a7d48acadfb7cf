"""What every benchmark says beside its numbers, and how it says them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.comfy_host import comfyui_folder

ROOT = Path(__file__).resolve().parent.parent

Row = Mapping[str, Any]


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(f"run.py bench {name}", description=description)
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers and the setting to FILE")
    options.add_argument(
        "--quick", action="store_true", help="tiny models on the CPU: shows that it works, measures nothing"
    )
    options.add_argument("--rounds", type=int, metavar="N", help="measured rounds; the table has their medians")
    options.add_argument(
        "--threads", type=int, metavar="N", default=os.cpu_count() or 1, help="torch's threads (default: all cores)"
    )
    return options


def setting(threads: int, device: str) -> dict[str, Any]:
    """Where the numbers come from: versions, processor, device, threads, commit."""
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers", "safetensors")}
    comfyui = comfyui_folder() / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+)"', comfyui.read_text()) if comfyui.is_file() else None
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **versions,
        "ComfyUI": found.group(1) if found else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
    }


def table(rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """A Markdown table; each column is a title and what it shows of a row."""
    lines = [list(columns), ["---"] * len(columns), *([show(row) for show in columns.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def seconds(value: float | None) -> str:
    """Three significant digits: runs differ by more than the next one says."""
    return "-" if value is None else f"{value:.3g}"


def told(line: str) -> None:
    """Progress, where it does not mix with the tables."""
    print(line, file=sys.stderr, flush=True)


def finish(name: str, facts: Mapping[str, Any], rows: Sequence[Row], file: Path | None, **parts: Any) -> None:
    """Says where the numbers come from, and writes it all to `file` where one is named, `parts` under their names."""
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()))
    if file is not None:
        file.write_text(json.dumps({"benchmark": name, "setting": facts, "rows": rows, **parts}, indent=1) + "\n")


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" + changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found.group(1) if found else platform.processor()
