"""ComfyUI's own SD3 under a cache: what samples it stays as it is, and steps are reused as our engine reuses them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from sd3_local.caching import weights_hash
from sd3_local.pipelines.controlnet import ControlNetFile
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.caches import ALWAYS, NEVER, TECHNIQUES
from tests.native import (
    DUAL,
    MEDIUM,
    Native,
    accelerated,
    apart,
    asked,
    guide,
    make_native,
    replaced,
    rescaled,
    skipping,
)

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def native(comfy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("medium"), MEDIUM)


@pytest.fixture(scope="module")
def dual(comfy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("dual"), DUAL)


@pytest.fixture
def runs(comfy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The cache runs that were made, in their order."""
    from sd3_local.host import native_cache

    made: list[Any] = []

    class Noted(native_cache.CacheRun):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(native_cache, "CacheRun", Noted)
    yield made


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def trace(run: Any) -> str:
    return run.trace.compact.replace(".", "")


def state(model: Any) -> Any:
    """What of a MODEL and its modules a run could leave something in."""
    modules = model.model.diffusion_model
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in modules.modules())
    attributes = {name: sorted(vars(part)) for name, part in modules.named_modules()}
    options = {name: repr(value) for name, value in model.model_options.items()}
    return hooks, attributes, options, {kind: dict(each) for kind, each in model.wrappers.items()}


# What sampling can be like: the model as other nodes have changed it, and KSampler's options.
SAMPLINGS: dict[str, Callable[[Native], tuple[Any, dict[str, Any]]]] = {
    "plain": lambda native: (native.model, {}),
    "no guidance": lambda native: (native.model, {"cfg": 1.0}),
    "prompts apart": lambda native: (native.model, {"conds": apart(native)}),
    "batch": lambda native: (native.model, {"batch": 2}),
    "img2img": lambda native: (native.model, {"denoise": 0.5}),
    "controlnet": lambda native: (native.model, {"conds": native.conds(control=native.control())}),
    "controlnet on one side": lambda native: (
        native.model,
        {"conds": [native.conds(control=native.control())[0], native.conds()[1]]},
    ),
    "skip-layer guidance": lambda native: (skipping(native.model), {}),
    "wrapper": lambda native: (rescaled(native.model), {}),
    "first block replaced": lambda native: (replaced(native.model, 0), {}),
    "last block replaced": lambda native: (replaced(native.model, 3), {}),
    "heun": lambda native: (native.model, {"sampler": "heun"}),
    "euler_ancestral": lambda native: (native.model, {"sampler": "euler_ancestral"}),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_never_reusing_is_comfyui_to_the_last_bit(native: Native, runs: list[Any], name: str) -> None:
    model, options = SAMPLINGS[name](native)
    expected = native.sample(model, **options)
    before = state(model)
    for never in NEVER:
        assert torch.equal(native.sample(accelerated(model, **never), **options), expected)
        assert set(trace(runs[-1])) == {"C"}
    assert state(model) == before
    assert torch.equal(native.sample(model, **options), expected)


@pytest.mark.parametrize("technique", range(3), ids=TECHNIQUES)
@pytest.mark.parametrize("name", SAMPLINGS)
def test_always_reusing_computes_what_it_is_forced_to(
    native: Native, runs: list[Any], name: str, technique: int
) -> None:
    model, options = SAMPLINGS[name](native)
    expected, before = native.sample(model, **options), state(model)
    fast = accelerated(model, **ALWAYS[technique], cacheMaxConsecutiveSteps=2)
    first, again = native.sample(fast, **options), native.sample(fast, **options)
    assert trace(runs[0]) == trace(runs[1]) == "CrrCrrCrrCrC"
    assert torch.equal(first, again)
    assert state(model) == before
    assert not runs[0]._slots and not runs[1]._slots
    assert 0 < difference(first, expected) < 1


@pytest.mark.parametrize("spec", ["native", "dual"])
@pytest.mark.parametrize("controlled", [False, True], ids=["", "controlnet"])
def test_the_same_steps_are_reused_as_in_our_engine(
    spec: str, controlled: bool, runs: list[Any], request: pytest.FixtureRequest
) -> None:
    native = request.getfixturevalue(spec)
    given, materials, conds = {}, Materials(), native.conds()
    if controlled:
        given = {"controlNet": [{"model": "net", "guideImage": "guide", "weight": 0.8}]}
        net = ControlNetFile(native.net, LocalPlacement(torch.device("cpu"), torch.float32))
        materials = Materials(pictures={"guide": guide()}, control_nets={"net": net})
        conds = native.conds(control=native.control())
    seen: dict[str, set[str]] = {}
    for technique, always in zip(TECHNIQUES, ALWAYS, strict=True):
        (cache, bound) = always
        # Thresholds that allow so many times the error of the API's defaults, 0.5 and 0.25; 0 or 1 allows any.
        for odds in (9, 13, 24, None):
            if technique == "tea":
                threshold = 1.0 if odds is None else odds / (1 + odds)
            else:
                threshold = 0.0 if odds is None else 1 / (1 + 3 * odds)
            options = {cache: True, bound: threshold, "cacheMaxConsecutiveSteps": 4}
            ours = generate(asked(**given, acceleratorOptions=options), native.own, Unwatched(), materials)
            account = next(one for one in ours.report.accounts if one.feature == "acceleratorOptions")
            theirs = native.sample(accelerated(native.model, **options), conds=conds)
            assert trace(runs[-1]) == account.data["runs"][0]["trace"].replace(".", "")
            assert difference(theirs, ours.pictures[0].latent[None]) < TOLERANCE
            seen.setdefault(technique, set()).add(trace(runs[-1]))
    # Nothing is reused, everything, and what the signals say.
    assert all(len(traces) > 2 for traces in seen.values())


@pytest.mark.parametrize("options", ALWAYS, ids=TECHNIQUES)
@pytest.mark.parametrize(
    "changed",
    [skipping, rescaled, lambda model: replaced(model, 0), lambda model: replaced(model, 3)],
    ids=["skip-layer guidance", "wrapper", "first block", "last block"],
)
def test_other_nodes_may_come_before_or_after(
    native: Native, runs: list[Any], changed: Callable[[Any], Any], options: dict[str, Any]
) -> None:
    before = native.sample(accelerated(changed(native.model), **options))
    after = native.sample(changed(accelerated(native.model, **options)))
    assert torch.equal(before, after)
    assert difference(before, native.sample(accelerated(native.model, **options))) > 0.01


def test_loras_are_sampled_before_and_after_the_node(native: Native, runs: list[Any]) -> None:
    name = "diffusion_model.joint_blocks.1.x_block.mlp.fc1.weight"
    weight = native.model.model.diffusion_model.joint_blocks[1].x_block.mlp.fc1.weight

    def adapted(model: Any) -> Any:
        clone = model.clone()
        clone.add_patches(
            {name: ("diff", (torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)),))}, 0.2
        )
        return clone

    plain, expected = native.sample(native.model), native.sample(adapted(native.model))
    assert difference(expected, plain) > 0.01
    assert torch.equal(native.sample(accelerated(adapted(native.model), **NEVER[0])), expected)
    assert torch.equal(native.sample(adapted(accelerated(native.model, **NEVER[0]))), expected)
    assert torch.equal(native.sample(accelerated(native.model, **NEVER[0])), plain)
    reused = native.sample(accelerated(adapted(native.model), **ALWAYS[0], cacheMaxConsecutiveSteps=1))
    assert "r" in trace(runs[-1]) and difference(reused, expected) < difference(reused, plain)


def test_a_step_is_computed_where_what_acts_changes(native: Native, runs: list[Any]) -> None:
    def windowed(conds: list[Any], start: float, end: float) -> Any:
        return [[conds[0][0], {**conds[0][1], "start_percent": start, "end_percent": end}]]

    positive, negative = native.conds()
    prompts = [windowed(positive, 0.0, 0.45) + windowed(negative, 0.45, 1.0), negative]
    for conds, changes in ((native.conds(control=native.control(0.3, 0.7)), 2), (prompts, 1)):
        expected = native.sample(native.model, conds=conds)
        assert torch.equal(native.sample(accelerated(native.model, **NEVER[0]), conds=conds), expected)
        for options in ALWAYS:
            native.sample(accelerated(native.model, **options, cacheMaxConsecutiveSteps=5), conds=conds)
            assert runs[-1].trace.reasons()["change"] == changes


def test_windows_count_the_steps_that_are_executed(native: Native, runs: list[Any]) -> None:
    half = accelerated(native.model, **ALWAYS[0], cacheStartStepPercentage=50, cacheMaxConsecutiveSteps=5)
    native.sample(half, start=6)
    assert trace(runs[-1]) == "CCCrrC"
    native.sample(half)
    assert trace(runs[-1]) == "CCCCCCrrrrrC"


SAMPLERS_LEFT_ALONE = {"dpm_adaptive", "dpm_fast", "heunpp2", "seeds_3", "sa_solver_pece"}


def test_every_sampler_is_known_or_left_alone(native: Native, runs: list[Any], caplog: Any) -> None:
    import comfy.samplers
    from sd3_local.host.native_samplers import KNOWN

    # ddim is euler's function under another name.
    assert {each.name for each in KNOWN} | SAMPLERS_LEFT_ALONE | {"ddim"} == set(comfy.samplers.SAMPLER_NAMES)
    fast = accelerated(native.model, **ALWAYS[0])
    for name in SAMPLERS_LEFT_ALONE:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            result = native.sample(fast, sampler=name, steps=3)
        assert "every step is computed" in caplog.text
        assert torch.equal(result, native.sample(native.model, sampler=name, steps=3))
    assert not runs


def test_the_steps_of_every_known_sampler_are_found(native: Native, runs: list[Any]) -> None:
    """Each is evaluated as often as it is said to be, and none of its steps is taken for another."""
    from sd3_local.host.native_samplers import KNOWN

    for known in KNOWN:
        native.sample(accelerated(native.model, **ALWAYS[0], cacheMaxConsecutiveSteps=1), sampler=known.name, steps=6)
        rows = runs[-1].trace.rows
        assert [row.step for row in runs[-1].trace.steps] == list(range(6)), known
        assert len(rows) == (11 if known.evaluations == 2 else 6), known
        assert trace(runs[-1]) == "CrCrCC", known
        assert all(row.action == rows[row.step * known.evaluations].action for row in rows), known


def test_what_is_cancelled_leaves_nothing(native: Native, runs: list[Any]) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: int, *others: Any) -> None:
        if step == 3:
            raise Cancelled

    for options in ALWAYS:
        fast = accelerated(native.model, **options)
        expected, before = native.sample(fast), state(native.model)
        with pytest.raises(Cancelled):
            native.sample(fast, callback=cancel)
        assert not runs[-1]._slots
        assert state(native.model) == before
        assert torch.equal(native.sample(fast), expected)


def test_the_last_accelerator_counts_and_one_that_is_off_is_none(native: Native, runs: list[Any]) -> None:
    fast = accelerated(native.model, **ALWAYS[0])
    native.sample(accelerated(fast, **NEVER[1]))
    assert len(runs) == 1 and set(trace(runs[0])) == {"C"}
    native.sample(accelerated(fast))
    assert len(runs) == 1
    native.sample(fast)
    assert "r" in trace(runs[1])


def test_a_model_that_is_not_sd3_is_refused(native: Native) -> None:
    import comfy.model_patcher

    other = comfy.model_patcher.ModelPatcher(torch.nn.Linear(2, 2), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(RequestError, match="model is ComfyUI's Linear, but only SD3") as caught:
        accelerated(other, **ALWAYS[0])
    assert caught.value.faults[0].parameter == "model"


def test_a_model_has_one_calibration_in_both_engines(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while ComfyUI has a LoRA in the very weights that tell models apart."""
    from sd3_local.host import native_cache

    asked_for = []
    known = native_cache.calibration_of

    def noted(*key: object, **where: object) -> object:
        asked_for.append(key)
        return known(*key, **where)

    monkeypatch.setattr(native_cache, "calibration_of", noted)
    adapted = native.model.clone()
    shape = native.model.model.diffusion_model.final_layer.linear.weight.shape
    adapted.add_patches({"diffusion_model.final_layer.linear.weight": ("diff", (torch.ones(shape),))})
    accelerated(native.model, **ALWAYS[0])
    native.sample(adapted)
    accelerated(native.model, **ALWAYS[0])
    assert asked_for == [(weights_hash(native.own.transformer().module), "float32")] * 2


def test_the_log_says_what_was_decided(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        native.sample(accelerated(native.model, **ALWAYS[2], cacheMaxConsecutiveSteps=2))
    assert "DB Cache: 5 computed, 0 conditional-only, 7 reused  CrrC.rrCr.rCrC" in caplog.text
    assert "computed because of: first 1, maximum 3, last 1; at most 2 reused in a row" in caplog.text
    assert "not calibrated" in caplog.text


@pytest.mark.parametrize("technique", range(3), ids=TECHNIQUES)
@pytest.mark.parametrize(("name", "calls"), [("plain", 1), ("prompts apart", 2), ("no guidance", 1)])
def test_a_reused_step_leaves_the_blocks_out(
    native: Native, runs: list[Any], name: str, calls: int, technique: int
) -> None:
    """In every call of the model, however many ComfyUI makes in a step."""
    blocks = native.model.model.diffusion_model.joint_blocks
    watched, counted = [*blocks, blocks[-1].x_block.mlp], [0] * (len(blocks) + 1)

    def count(index: int) -> None:
        counted[index] += 1

    handles = [part.register_forward_hook(lambda *_, at=at: count(at)) for at, part in enumerate(watched)]
    try:
        model, options = SAMPLINGS[name](native)
        native.sample(accelerated(model, **ALWAYS[technique], cacheMaxConsecutiveSteps=2), **options)
    finally:
        for handle in handles:
            handle.remove()
    every, computed = 12 * calls, trace(runs[-1]).count("C") * calls
    first, feed = computed if technique == 1 else every, every if technique == 2 else computed
    assert counted == [first, computed, computed, computed, feed]


def test_blocks_that_are_replaced_from_a_step_on_are_noticed(native: Native, runs: list[Any]) -> None:
    def late(apply: Any, given: dict[str, Any]) -> torch.Tensor:
        options = given["c"]["transformer_options"]
        if given["timestep"][0] < 0.6:
            options = {**options, "patches_replace": {"dit": {("double_block", 2): lambda streams, _: streams}}}
        return apply(given["input"], given["timestep"], **{**given["c"], "transformer_options": options})

    model = native.model.clone()
    model.set_model_unet_function_wrapper(late)
    native.sample(accelerated(model, **ALWAYS[0], cacheMaxConsecutiveSteps=5))
    assert runs[-1].trace.reasons()["shape"] == 1
