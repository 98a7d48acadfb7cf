"""Workflows that earlier releases of the pack saved, in `tests/data/workflows`: this one knows and runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.comfy_host import ComfyHost
from tools.starter.workflow import specs, to_prompt

RELEASES = Path(__file__).resolve().parents[1] / "data" / "workflows"
REQUESTS = sorted(RELEASES.glob("*/api/*.json"))
SAVED = sorted(RELEASES.glob("*/editor-*/*.json"))
NEEDS_MORE = ("calibrate-and-native",)
"""Workflows that take a checkpoint, or minutes: known, but not run."""


def name(path: Path) -> str:
    return "-".join(path.relative_to(RELEASES).with_suffix("").parts)


def own(prompt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of this pack in a prompt, by their ids."""
    return {key: node for key, node in prompt.items() if node["class_type"].startswith("SD3Local")}


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def test_something_is_frozen() -> None:
    assert REQUESTS and SAVED


@pytest.mark.parametrize("path", REQUESTS, ids=name)
def test_nodes_inputs_and_values_are_known(host: ComfyHost, path: Path) -> None:
    info = host.object_info()
    prompt = json.loads(path.read_text("utf-8"))
    for node in own(prompt).values():
        known = specs(info[node["class_type"]])
        assert set(node["inputs"]) <= set(known)
        for key, value in node["inputs"].items():
            kind, options = known[key]
            if is_link(value):
                source = prompt[value[0]]
                made = info[source["class_type"]]["output"][value[1]]
                assert made == kind or "*" in (made, kind)
            elif "options" in options:
                assert value in options["options"]
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"]
            else:
                assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind])
        required = info[node["class_type"]]["input"].get("required", {})
        # An input that came later must be optional, or old prompts would be refused.
        assert set(required) <= set(node["inputs"])


@pytest.mark.parametrize("path", [path for path in SAVED if path.stem != "subgraphs"], ids=name)
def test_the_editor_s_form_gives_the_values_that_its_release_ran(host: ComfyHost, path: Path) -> None:
    """It holds a node's values by their order alone: a new or moved widget would shift them."""
    then = json.loads((path.parents[1] / "api" / path.name).read_text("utf-8"))
    now = to_prompt(json.loads(path.read_text("utf-8")), host.object_info())
    assert own(now).keys() == own(then).keys()
    for key, node in own(then).items():
        assert now[key]["class_type"] == node["class_type"]
        assert {field: now[key]["inputs"].get(field) for field in node["inputs"]} == node["inputs"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", [path for path in REQUESTS if path.stem not in NEEDS_MORE], ids=name)
def test_it_runs(host: ComfyHost, path: Path) -> None:
    run = host.run(json.loads(path.read_text("utf-8")), timeout=280)
    assert run.status == "success", run.error
    assert run.images
