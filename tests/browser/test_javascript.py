"""The JavaScript of the editor's extension: its types, its style, and its unit tests, by the tools that JavaScript has.

To run one of them by hand, once this file's tests have installed them:

    .work/installed/browser-package-lock/node_modules/.bin/tsc -p tests/browser
    node --test tests/browser/unit/*.test.mjs
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installed import node, npm_packages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
UNIT_TESTS = sorted((HERE / "unit").glob("*.test.mjs"))

BAD = {
    "import { $el } from '../../../scripts/ui.js'\n$el()": "no-restricted-imports",
    "Node.prototype.foo = 1": "No prototype patching",
    "Object.assign(Node.prototype, { foo: 1 })": "No prototype patching",
    "window.shared = 1": "Nothing is written into the page's globals",
    "export const f = () => undefinedName": "no-undef",
}


@pytest.fixture(scope="module")
def packages() -> Path:
    return npm_packages(HERE / "package-lock.json")


def run(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [*node(), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, encoding="utf-8", timeout=120)


def lint(packages: Path, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    # What a configuration imports is looked for beside it.
    config = shutil.copy(HERE / "eslint.config.mjs", packages)
    return run(packages / "node_modules/eslint/bin/eslint.js", "-c", config, *arguments, text=text)


def test_types(packages: Path) -> None:
    ended = run(packages / "node_modules/typescript/bin/tsc", "-p", HERE)
    assert ended.returncode == 0, ended.stdout


def test_style(packages: Path) -> None:
    ended = lint(packages, "--max-warnings", "0", "web", "tests/browser/unit")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("code", "rule"), BAD.items(), ids=[rule for _, rule in BAD.items()])
def test_what_harms_other_packs_is_refused(packages: Path, code: str, rule: str) -> None:
    ended = lint(packages, "--stdin", "--stdin-filename", "web/editor/bad.mjs", text=code)
    assert ended.returncode == 1 and rule in ended.stdout, ended.stdout + ended.stderr


def test_units() -> None:
    assert UNIT_TESTS
    ended = run("--test", *UNIT_TESTS)
    assert ended.returncode == 0, ended.stdout
