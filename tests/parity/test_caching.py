"""Whole runs under caches: nothing that a run can have makes them wrong, and they leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from sd3_local.pipelines.canvas import Box
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.faces import Found
from sd3_local.pipelines.features import Account
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.addons import add_ons
from tests.caches import ALWAYS, NEVER, TECHNIQUES
from tests.engines import request
from tests.nano import drawn, open_nano, scenes
from tools.nano.drawings import draw_edges

SIDE, STEPS = 64, 8
SCENE, GUIDE = scenes(21, 2, subject="circle")
LONG = " ".join(["blurred, dark, a yellow ring in the center"] * 12)

CONTROL = {"controlNet": [{"model": "nano-edges", "guideImage": "edges", "startStep": 2, "endStep": 6}]}
LORA = {"lora": [{"model": "nano-stripes", "transformer": "low"}]}
ADAPTER = {"ipAdapters": [{"model": "nano-reference", "guideImages": ["guide"], "weight": 0.8}]}
SEEDED = {"inputs": {"seedImage": "seed"}, "strength": 0.75}
# What the decisions have to get along with: features, prompts in calls of their own, every kind of sampler.
RUNS: dict[str, dict[str, Any]] = {
    "text to image": {},
    "no guidance": {"CFGScale": 1.0},
    "prompts apart": {"negativePrompt": LONG},
    "img2img": SEEDED,
    "inpainting": {"inputs": {"seedImage": "seed", "maskImage": "mask"}, "strength": 0.75},
    "lora stage": LORA,
    "controlnet": CONTROL,
    "controlnet and prompts apart": {**CONTROL, "negativePrompt": LONG},
    "ip adapter": ADAPTER,
    "ip adapter and prompts apart": {**ADAPTER, "negativePrompt": LONG},
    "all features": {**SEEDED, **LORA, **CONTROL, **ADAPTER},
    "two evaluations": {"scheduler": "Heun"},
    "two evaluations inside": {"scheduler": "DPM++"},
    "noise": {"scheduler": "Euler a"},
    "noise and two evaluations": {"scheduler": "DPM++ SDE"},
    "multistep": {"scheduler": "UniPC"},
}


class OneFace:
    name = "one face"

    def find(self, picture: torch.Tensor) -> list[Found]:
        return [Found(Box(16, 16, 48, 48), 0.95)]


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_nano()


@pytest.fixture(scope="module")
def materials(comfy, nano: Model) -> Materials:
    mask = torch.zeros(1, SIDE, SIDE, 1)
    mask[:, 16:48, 16:48] = 1
    pictures = {
        "seed": drawn(SCENE, SIDE, SIDE),
        "mask": mask,
        "edges": draw_edges(GUIDE).movedim(0, -1)[None],
        "guide": drawn(GUIDE),
    }
    return Materials.merged([add_ons(nano), Materials(pictures=pictures, detector=OneFace())])


def paint(
    nano: Model, materials: Materials, options: Mapping[str, Any] | None, watched: Any = None, **fields: Any
) -> Result:
    asked = request(
        **{
            "width": SIDE,
            "height": SIDE,
            "steps": STEPS,
            "CFGScale": 5.0,
            "negativePrompt": "red",
            "acceleratorOptions": None if options is None else dict(options),
            **fields,
        }
    )
    return generate(asked, nano, watched or Unwatched(), materials)


def told(result: Result, feature: str = "acceleratorOptions") -> Account:
    return next(account for account in result.report.accounts if account.feature == feature)


def traces(result: Result) -> list[str]:
    return [run["trace"].replace(".", "") for run in told(result).data["runs"]]


def latents(result: Result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def state(nano: Model) -> dict[str, Any]:
    """Every tensor and processor of the transformer, and every hook and attribute of its modules."""
    module = nano.transformer().module
    tensors = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}
    processors = [id(block.attn.processor) for block in module.transformer_blocks]
    attributes = {name: sorted(vars(part)) for name, part in module.named_modules()}
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())
    return {"tensors": tensors, "rest": (processors, attributes, hooks)}


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before["rest"] == after["rest"] and all(
        identity == after["tensors"][name][0] and torch.equal(value, after["tensors"][name][1])
        for name, (identity, value) in before["tensors"].items()
    )


@pytest.fixture(scope="module")
def plain(nano: Model, materials: Materials) -> dict[str, Result]:
    return {name: paint(nano, materials, None, **fields) for name, fields in RUNS.items()}


@pytest.mark.parametrize("options", NEVER, ids=TECHNIQUES)
@pytest.mark.parametrize("name", RUNS)
def test_never_reusing_is_no_accelerator_to_the_last_bit(nano, materials, plain, name: str, options) -> None:
    result = paint(nano, materials, options, **RUNS[name])
    assert torch.equal(latents(result), latents(plain[name]))
    assert set("".join(traces(result))) == {"C"}


@pytest.mark.parametrize("options", ALWAYS, ids=TECHNIQUES)
@pytest.mark.parametrize("name", RUNS)
def test_always_reusing_computes_what_it_is_forced_to(nano, materials, plain, name: str, options) -> None:
    before = state(nano)
    result = paint(nano, materials, {**options, "cacheMaxConsecutiveSteps": 2}, **RUNS[name])
    assert same(before, state(nano))
    # A net begins at step 2 and ends before step 6, a LoRA begins at step 4; img2img runs six of the eight steps.
    expected = {
        "img2img": "CrrCrC",
        "inpainting": "CrrCrC",
        "lora stage": "CrrCCrrC",
        "controlnet": "CrCrrCCC",
        "controlnet and prompts apart": "CrCrrCCC",
        "all features": "CrCCrC",
    }.get(name, "CrrCrrCC")
    assert traces(result) == [expected]
    assert not torch.equal(latents(result), latents(plain[name]))


@pytest.mark.parametrize("name", RUNS)
def test_a_few_reused_steps_hardly_show(nano, materials, name: str) -> None:
    """At the model's own size, and with steps as short as it is used with."""
    real = {**RUNS[name], "width": 128, "height": 128, "steps": 28}
    expected = latents(paint(nano, materials, None, **real))
    for options in ALWAYS:
        few = {**options, "cacheMaxConsecutiveSteps": 1, "cacheStartStepPercentage": 50}
        result = paint(nano, materials, few, **real)
        difference = (latents(result) - expected).norm() / expected.norm()
        print(f"{name} {options} {traces(result)} {difference:.4f}")
        assert 0 < difference < 0.2


@pytest.mark.parametrize("options", ALWAYS, ids=TECHNIQUES)
@pytest.mark.parametrize("negative", ["red", LONG], ids=["together", "apart"])
def test_control_nets_are_not_run_in_reused_steps(nano, materials, options, negative: str) -> None:
    every = {"controlNet": [{"model": "nano-edges", "guideImage": "edges"}], "negativePrompt": negative}
    result = paint(nano, materials, {**options, "cacheMaxConsecutiveSteps": 3}, **every)
    (trace,) = traces(result)
    net = told(result, "controlNet").data
    assert trace == "CrrrCrrC"
    assert net["evaluations"] == trace.count("C") * (1 if negative == "red" else 2)


def test_a_stage_switch_is_computed_with_the_new_weights(nano, materials) -> None:
    result = paint(nano, materials, {**ALWAYS[0], "cacheMaxConsecutiveSteps": 5}, **LORA)
    (run,) = told(result).data["runs"]
    assert run["steps"][4]["reason"] == "change"
    assert run["trace"] == "Crrr.CrrC"


def test_windows_count_the_steps_that_are_executed(nano, materials) -> None:
    """Six of eight steps are run: half of them are three."""
    half = {**ALWAYS[0], "cacheStartStepPercentage": 50, "cacheMaxConsecutiveSteps": 5}
    assert traces(paint(nano, materials, half, **SEEDED)) == ["CCCrrC"]
    steps = {**ALWAYS[0], "cacheStartStep": 2, "cacheEndStep": 4}
    assert traces(paint(nano, materials, steps, **SEEDED)) == ["CCrrCC"]
    beyond = paint(nano, materials, {**ALWAYS[0], "cacheStartStep": 7}, **SEEDED)
    assert traces(beyond) == ["CCCCCC"]
    assert "none of the 6 executed steps begins in the window" in str(beyond.report)


@pytest.mark.parametrize("fields", [{}, {"scheduler": "Euler a"}, CONTROL], ids=["plain", "noise", "controlnet"])
def test_each_result_has_caches_of_its_own(nano, materials, fields) -> None:
    options = {"fbCache": True, "fbCacheThreshold": 0.2}
    together = paint(nano, materials, options, numberResults=3, seed=9, **fields)
    assert len(traces(together)) == 3
    for picture, trace in zip(together.pictures, traces(together), strict=True):
        alone = paint(nano, materials, options, seed=picture.seed, **fields)
        assert torch.equal(picture.latent, alone.pictures[0].latent)
        assert [trace] == traces(alone)


def test_runs_know_nothing_of_each_other(nano, materials) -> None:
    """Other prompts, sizes, samplers and techniques in between change nothing."""
    options = {"teaCache": True, "teaCacheDistance": 0.8}
    first = paint(nano, materials, options)
    paint(nano, materials, {"fbCache": True}, positivePrompt="a blue ring", width=96)
    paint(nano, materials, {"dbCache": True}, scheduler="Heun", CFGScale=1.0)
    paint(nano, materials, None, seed=77)
    again = paint(nano, materials, options)
    assert torch.equal(latents(first), latents(again))
    assert traces(first) == traces(again)


def test_a_cancelled_run_leaves_nothing(nano, materials) -> None:
    class Cancelled(Exception):
        pass

    class Cancelling(Unwatched):
        def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
            if done == 3:
                raise Cancelled

    options, before = ALWAYS[0], state(nano)
    expected = paint(nano, materials, options, **CONTROL)
    with pytest.raises(Cancelled):
        paint(nano, materials, options, Cancelling(), **CONTROL)
    assert same(before, state(nano))
    assert torch.equal(latents(paint(nano, materials, options, **CONTROL)), latents(expected))


@pytest.mark.parametrize("options", ALWAYS, ids=TECHNIQUES)
def test_full_memory_starts_the_caches_anew(nano, materials, options, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step runs out of memory; the streamed run has the prompts apart, and decides the same."""
    expected = paint(nano, materials, options, **CONTROL)
    head, calls = nano.transformer().module.proj_out.forward, []

    def full_once(hidden: torch.Tensor) -> torch.Tensor:
        calls.append(len(hidden))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return head(hidden)

    monkeypatch.setattr(nano.transformer().module.proj_out, "forward", full_once)
    result = paint(nano, materials, options, **CONTROL)
    assert calls[:4] == [2, 2, 1, 1]
    assert traces(result) == traces(expected)
    assert (latents(result) - latents(expected)).abs().max() < 1e-3


def test_faces_painted_again_have_caches_of_their_own(nano, materials) -> None:
    face = {"confidence": 0.1, "strength": 0.5, "steps": 8}
    result = paint(nano, materials, {**ALWAYS[0], "cacheMaxConsecutiveSteps": 3}, ultralytics=face)
    assert traces(result) == ["CrrrCrrC", "CrrC"]
    # The faces found, and the decisions of both canvases, which differ in size.
    assert [picture.shape[:2] for picture in result.previews[:-1]] == [(SIDE, SIDE)]
    assert result.previews[-1].shape[0] > 300
    assert "canvas 2" in str(result.report)


@pytest.mark.parametrize("option", ["fbCacheThreshold", "teaCacheDistance", "dbCacheThreshold"])
def test_more_is_reused_the_bolder_the_option_on_real_pictures(nano, materials, option: str) -> None:
    technique, rising = option[: option.index("Cache") + 5], option == "teaCacheDistance"
    reused = []
    for tenth in range(0, 11):
        options = {technique: True, option: tenth / 10, "cacheMaxConsecutiveSteps": 5}
        reused.append(told(paint(nano, materials, options, steps=16)).data["runs"][0]["reused"])
    assert reused == sorted(reused, reverse=not rising)
    assert (min(reused), max(reused)) == (0, 12)
    assert len(set(reused)) > 4


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"fbCache": True, "teaCache": True}, "teaCache"),
        ({"dbCache": True, "teaCache": True}, "dbCache"),
        ({"fbCache": True, "cacheStartStep": 2, "cacheEndStepPercentage": 50}, "cacheEndStepPercentage"),
        ({"fbCache": True, "cacheStartStep": 4, "cacheEndStep": 4}, "cacheStartStep"),
        ({"fbCache": True, "cacheStartStepPercentage": 50, "cacheEndStepPercentage": 40}, "cacheStartStepPercentage"),
        ({"fbCache": True, "cacheEndStep": 9}, "cacheEndStep"),
        ({"fbCache": True, "cacheMaxConsecutiveSteps": 6}, "cacheMaxConsecutiveSteps"),
        ({"fbCache": True, "fbCacheThreshold": 1.1}, "fbCacheThreshold"),
    ],
)
def test_what_does_not_fit_together_is_refused(nano, materials, options, parameter: str) -> None:
    with pytest.raises(RequestError) as caught:
        paint(nano, materials, options)
    assert caught.value.faults[0].parameter == f"acceleratorOptions.{parameter}"


def test_the_report_says_what_was_done(nano, materials) -> None:
    result = paint(nano, materials, {**ALWAYS[0], "cacheMaxConsecutiveSteps": 3})
    report = str(result.report)
    assert "First Block Cache: 3 computed, 0 conditional-only, 5 reused  Crrr.CrrC" in report
    assert "computed because of: first 1, maximum 1, last 1; at most 3 reused in a row" in report
    assert "s saved" in report
    (run,) = told(result).data["runs"]
    assert (run["computed"], run["reused"], run["longestRun"]) == (3, 5, 3)
    assert run["computedMs"] > run["reusedMs"] > 0
    assert len(run["steps"]) == STEPS
    tensor = 2 * (SIDE // 16) ** 2 * nano.transformer().module.inner_dim * 4
    assert 2 * tensor < run["cacheBytes"] <= 3 * tensor
    (picture,) = result.previews
    assert picture.shape[2] == 3 and picture.std() > 0.05
    off = paint(nano, materials, {})
    assert not off.previews
    assert "every step was computed" in str(off.report)


def test_the_api_s_defaults_mean_the_same_error_for_each_technique(nano, materials) -> None:
    """On a calibrated model the same output error is another signal's error, and none of them the larger."""
    real = {"width": 128, "height": 128, "steps": 28}
    expected = latents(paint(nano, materials, None, **real))
    found = {}
    for name in TECHNIQUES:
        result = paint(nano, materials, {f"{name}Cache": True}, **real)
        assert told(result).data["calibrated"]
        (run,) = told(result).data["runs"]
        difference = ((latents(result) - expected).norm() / expected.norm()).item()
        print(f"{name} {run['trace']} {run['reused']} {difference:.4f}")
        found[name] = run["reused"]
        assert difference < 0.1
    assert min(found.values()) >= 10 and max(found.values()) - min(found.values()) <= 6
