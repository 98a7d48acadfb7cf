"""Imports run one way: nodes -> api -> host -> pipelines -> caching, and only `host` and `nodes` know ComfyUI."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "caching": set(),
    "pipelines": {"caching"},
    "host": {"pipelines", "caching"},
    "nodes": {"api", "host", "pipelines", "caching"},
    "api": {"host", "pipelines", "caching"},
}
COMFY = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "latent_preview", "nodes", "server"}
# A node is declared with ComfyUI's public API, and with nothing else of it.
PUBLIC = {"nodes": {"comfy_api"}, "api": {"server"}, "host": COMFY}
SLOW = {"diffusers", "transformers", "scipy"}
FILES = sorted(path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py"))


def imports(path: Path, top_level: bool = False) -> set[str]:
    """The absolute top-level names and the pack's own layers (with a leading dot) that a file imports."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    depth = len(path.relative_to(ROOT).parts) - 1
    body = [node for node in tree.body if not isinstance(node, ast.If)] if top_level else ast.walk(tree)
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {"." + name.partition(".")[0] for name in names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_lies_under_it(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    own = {name[1:] for name in imports(path) if name.startswith(".")}
    assert own <= ALLOWED[layer], f"imports {own - ALLOWED[layer]}"
    assert imports(path) & COMFY <= PUBLIC.get(layer, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_slow_libraries_wait_for_their_first_use(path: Path) -> None:
    assert not imports(path, top_level=True) & SLOW


def test_the_engine_is_imported_without_the_slow_libraries() -> None:
    code = """if True:
        import sys
        from tools.pack import import_pack
        import_pack()
        import sd3_local.pipelines.generate, sd3_local.pipelines.model, sd3_local.pipelines.parse
        print(*sorted({"diffusers", "transformers", "scipy", "comfy", "folder_paths"} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_file_of_the_pack_is_two_ideas() -> None:
    folders = ("nodes", "pipelines", "caching", "host", "api", "tools", "benchmarks", "tests")
    long = [
        f"{path.relative_to(ROOT)}: {count}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    ]
    assert not long
