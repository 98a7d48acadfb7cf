"""What the editor is told while a person works at nodes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sd3_local.api.presets import inputs
from sd3_local.pipelines.effects import without_effect
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.fields import specs
from sd3_local.pipelines.request import AcceleratorOptions, ControlNet, ImageInference
from sd3_local.pipelines.text import TokenizerFiles, Tokenizers
from sd3_local.pipelines.text.count import Count, count

from tests.comfy_host import comfyui_folder


def judged(node: str, values: dict[str, Any], linked: list[str] | None = None) -> dict[str, Any]:
    from sd3_local.api.assist import judged

    return judged({"nodes": [{"node": node, "values": values, "linked": linked or []}]})["nodes"][0]


def defaults(node: str) -> dict[str, Any]:
    """A new node's values of the request's fields."""
    return {
        name: specs(cls)[name].unset
        for name, cls in inputs()[node].items()
        if cls is not None and name not in ("model", "scheduler")
    }


def parameters(found: dict[str, Any]) -> list[str]:
    return [problem["parameter"] for problem in found["problems"]]


def idle(found: dict[str, Any]) -> set[str]:
    return {name for one in found["idle"] for name in one["parameters"]}


def test_new_nodes_have_no_problems(comfy: ModuleType) -> None:
    assert {node: judged(node, defaults(node))["problems"] for node in inputs()} == {node: [] for node in inputs()}


def test_problems_are_told_as_at_run_time(comfy: ModuleType) -> None:
    found = judged("SD3LocalSampler", {"width": 1000, "height": 1024, "CFGScale": 40})
    assert parameters(found) == ["width", "CFGScale"]
    assert "multiple of 16" in found["problems"][0]["message"]
    assert judged("SD3LocalSampler", {"width": 1000}, ["width"])["problems"] == []


def test_a_missing_file_is_told_with_its_folder(comfy: ModuleType) -> None:
    for node, name, folder in (
        ("SD3LocalModel", "model", "checkpoints"),
        ("SD3LocalModel", "textEncoder2", "text_encoders"),
        ("SD3LocalLora", "model", "loras"),
        ("SD3LocalControlNet", "model", "controlnet"),
        ("SD3LocalIPAdapter", "encoder", "clip_vision"),
        ("SD3LocalFaceFix", "detector", "ultralytics"),
    ):
        (problem,) = judged(node, {name: "gone.safetensors"})["problems"]
        assert problem["parameter"] == name
        assert folder in problem["message"] and "gone.safetensors" in problem["message"]


def test_a_mask_without_a_seed_image_is_a_problem(comfy: ModuleType) -> None:
    assert parameters(judged("SD3LocalInputs", defaults("SD3LocalInputs"), ["maskImage"])) == ["inputs.seedImage"]


def test_idle_options_of_nodes(comfy: ModuleType) -> None:
    values = defaults("SD3LocalInputs")
    assert idle(judged("SD3LocalInputs", values)) == {"strength", "maskMargin"}
    assert idle(judged("SD3LocalInputs", values, ["seedImage"])) == {"maskMargin"}
    assert idle(judged("SD3LocalInputs", values, ["seedImage", "maskImage"])) == set()
    assert "encoder" in idle(judged("SD3LocalIPAdapter", defaults("SD3LocalIPAdapter"), ["clipVision"]))
    unchecked = judged("SD3LocalSafety", {"checkContent": False, "mode": "fast"})["idle"]
    assert [one["parameters"] for one in unchecked] == [("mode", "classifier")], "one reason is said once"
    assert idle(judged("SD3LocalSafety", {"checkContent": True})) == set()


def off(**known: Any) -> set[str]:
    base = {name: field.default for name, field in specs(AcceleratorOptions).items()}
    return {name for one in without_effect(AcceleratorOptions, base | known) for name in one.parameters}


def test_settings_of_caches_that_are_off_are_idle() -> None:
    assert off() == set(specs(AcceleratorOptions)) - {"fbCache", "teaCache", "dbCache"}
    assert off(teaCache=True) == {"fbCacheThreshold", "dbCacheThreshold", "dbCacheSkipInterval"}
    assert off(dbCache=True, fbCache=True) == {"teaCacheDistance"}


def test_the_form_of_a_window_that_is_not_used_is_idle() -> None:
    def idle(**known: Any) -> set[str]:
        base = {name: field.default for name, field in specs(ControlNet).items()}
        return {name for one in without_effect(ControlNet, base | known) for name in one.parameters}

    assert idle() == set()
    assert idle(startStep=2) == {"startStepPercentage", "endStepPercentage"}
    assert idle(endStepPercentage=50) == {"startStep", "endStep"}
    # A fault, which says so itself; either is to be taken back.
    assert idle(startStep=2, endStepPercentage=50) == set()


def test_what_is_unknown_makes_nothing_idle() -> None:
    for cls in (AcceleratorOptions, ControlNet, ImageInference):
        assert not list(without_effect(cls, {}))


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    comfy = Path(comfyui_folder()) / "comfy"
    return Tokenizers(TokenizerFiles(comfy / "sd1_tokenizer", comfy / "text_encoders" / "t5_tokenizer"))


def test_a_prompt_of_one_chunk_is_counted(tokenizers: Tokenizers) -> None:
    assert count(tokenizers, "") == Count(clip=2, chunks=1, t5=1, first_chunk_ends=None)
    assert count(tokenizers, "a red circle") == Count(clip=5, chunks=1, t5=5, first_chunk_ends=None)
    assert count(tokenizers, "a (red:1.3) circle").clip == 5


def test_the_end_of_the_first_chunk_is_marked(tokenizers: Tokenizers) -> None:
    words = ["red" if number % 2 else "blue" for number in range(74)] + ["cat", "dog", "bird"]
    found = count(tokenizers, " ".join(words))
    assert (found.clip, found.chunks, found.first_chunk_ends) == (79, 2, "blue red blue red cat")
    weighted = count(tokenizers, f"({' '.join(words[:40])}:1.2), {' '.join(words[40:])}")
    assert (weighted.clip, weighted.first_chunk_ends) == (80, "red blue red blue red")


def test_a_short_part_that_moves_to_the_next_chunk_is_not_before_the_mark(tokenizers: Tokenizers) -> None:
    found = count(tokenizers, f"{'red ' * 72}(a blue cat sleeps:1.2) here")
    assert (found.chunks, found.first_chunk_ends) == (2, "red red red red red")


def test_what_can_not_be_read_is_refused(comfy: ModuleType) -> None:
    from sd3_local.api.assist import judged, tokens

    for do, given, named in (
        (judged, [], "nodes"),
        (judged, {"nodes": [{"node": 1}]}, "nodes[0]"),
        (tokens, {"texts": {"a": 1}}, "texts"),
        (tokens, {"texts": {"a": "x" * 30_000}}, "texts"),
    ):
        with pytest.raises(RequestError, match=named.replace("[", r"\[")):
            do(given)
