"""What fields of a request demand of each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.parse import parse, parse_fields, parse_part
from sd3_local.pipelines.request import MAX_SEED, AcceleratorOptions, ImageInference, Inputs

from tests.strategies import BASE

FULL = {"model": "some model", "guideImage": "some image"}


def faults(**options: Any) -> list[tuple[str, str]]:
    """Codes and parameters of what is wrong with a request of these options."""
    try:
        parse({**BASE, **options})
    except RequestError as refused:
        return [(fault.code, fault.parameter) for fault in refused.faults]
    return []


def control_net(**options: Any) -> list[tuple[str, str]]:
    """The same of a second ControlNet of 28 steps."""
    return faults(controlNet=[FULL, {**FULL, **options}])


def cache(**options: Any) -> list[tuple[str, str]]:
    """The same of accelerator options of 28 steps."""
    return faults(acceleratorOptions=options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"startStep": 0, "endStep": 28}, []),
        ({"startStep": 27}, []),
        ({"startStep": 28}, ["invalidStartStep startStep"]),
        ({"endStep": 29}, ["invalidEndStep endStep"]),
        ({"startStep": 5, "endStep": 5}, ["invalidStartStep startStep"]),
        ({"startStep": 40, "endStep": 35}, ["invalidStartStep startStep", "invalidEndStep endStep"]),
        ({"startStepPercentage": 0, "endStepPercentage": 100}, []),
        ({"startStepPercentage": 99, "endStepPercentage": 100}, []),
        ({"startStepPercentage": 50, "endStepPercentage": 50}, ["invalidStartStepPercentage startStepPercentage"]),
        ({"startStep": 1, "startStepPercentage": 1}, ["conflictStartStepPercentage startStepPercentage"]),
        ({"startStep": 1, "endStepPercentage": 90}, ["conflictEndStepPercentage endStepPercentage"]),
        ({"endStep": 9, "endStepPercentage": 90}, ["conflictEndStepPercentage endStepPercentage"]),
        # A value that is wrong itself is no ground for a fault of another, but others still are.
        ({"startStep": 9, "endStep": "8"}, ["invalidEndStep endStep"]),
        ({"startStep": 30, "endStep": "8"}, ["invalidEndStep endStep", "invalidStartStep startStep"]),
    ],
)
def test_windows(options, expected):
    assert [f"{code} {path.removeprefix('controlNet[1].')}" for code, path in control_net(**options)] == expected

    def renamed(name: str) -> str:
        return "cache" + name[0].upper() + name[1:]

    def recoded(code: str) -> str:
        prefix = "conflict" if code.startswith("conflict") else "invalid"
        return prefix + "Cache" + code.removeprefix(prefix)

    told = [
        f"{code} {path.removeprefix('acceleratorOptions.')}"
        for code, path in cache(**{renamed(name): value for name, value in options.items()})
    ]
    assert told == [f"{recoded(fault.split()[0])} {renamed(fault.split()[1])}" for fault in expected]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 30))
def test_a_window_is_refused_exactly_when_it_does_not_lie_within_the_steps(start, end, steps):
    found = faults(steps=steps, controlNet=[{**FULL, "startStep": start, "endStep": end}])
    assert bool(found) == (not start < end <= steps)
    assert {path for _, path in found} <= {"controlNet[0].startStep", "controlNet[0].endStep"}


def test_a_windows_limits_are_what_would_do():
    with pytest.raises(RequestError) as refused:
        parse({**BASE, "steps": 10, "controlNet": [{**FULL, "startStep": 7, "endStep": 7}, {**FULL, "endStep": 11}]})
    assert [fault.limits["max"] for fault in refused.value.faults] == [6, 10]


def test_windows_are_not_held_to_steps_that_are_wrong_or_not_there():
    assert faults(steps=0, controlNet=[{**FULL, "endStep": 40}]) == [("invalidSteps", "steps")]
    assert parse_fields(ImageInference, {"controlNet": [{**FULL, "endStep": 40}]})
    assert parse_part(AcceleratorOptions, {"cacheEndStep": 40}).cache_end_step == 40


@pytest.mark.parametrize(
    ("on", "conflicts"),
    [
        (["fbCache"], []),
        (["fbCache", "teaCache"], ["TeaCache"]),
        (["teaCache", "dbCache"], ["DbCache"]),
        (["fbCache", "teaCache", "dbCache"], ["TeaCache", "DbCache"]),
    ],
)
def test_one_cache_at_a_time(on, conflicts):
    found = cache(**{name: name in on for name in ("fbCache", "teaCache", "dbCache")})
    assert found == [(f"conflict{name}", f"acceleratorOptions.{name[0].lower()}{name[1:]}") for name in conflicts]


def test_only_a_url_has_a_time_to_live():
    assert faults(ttl=60) == faults(ttl=60, outputType="URL") == []
    assert faults(ttl=60, outputType="dataURI") == [("incompatibleTtl", "ttl")]
    assert faults(ttl=60, outputType="paper") == [("invalidOutputType", "outputType")]
    assert parse_fields(ImageInference, {"ttl": 60}) == {"ttl": 60}
    with pytest.raises(RequestError, match="URL"):
        parse_fields(ImageInference, {"ttl": 60, "outputType": "base64Data"})


def test_masks_and_outpainting_need_a_seed_image():
    missing = [("missingSeedImage", "inputs.seedImage")]
    assert faults(inputs={"maskImage": "a"}) == missing
    assert faults(outpaint={"top": 64}) == missing
    assert faults(outpaint={"top": 64}, inputs={}) == missing
    assert faults(outpaint={"top": 64}, inputs={"maskImage": "a"}) == missing
    assert faults(outpaint={"top": 64}, inputs={"maskImage": "a", "seedImage": "b"}) == []
    assert faults(outpaint={"top": 64}, inputs={"seedImage": 3}) == [("invalidSeedImage", "inputs.seedImage")]
    assert faults(inputs={"maskImage": "a", "seedImage": 3}) == [("invalidSeedImage", "inputs.seedImage")]
    assert faults(outpaint={"top": 64}, inputs=3) == [("invalidInputs", "inputs")]
    assert faults(outpaint=3) == [("invalidOutpaint", "outpaint")]
    assert parse_fields(ImageInference, {"outpaint": {"top": 64}})
    with pytest.raises(RequestError) as refused:
        parse_part(Inputs, {"maskImage": "a"})
    assert [fault.parameter for fault in refused.value.faults] == ["seedImage"]


def test_strength_without_a_seed_image_does_no_harm():
    assert parse({**BASE, "strength": 0.5}).strength == 0.5


def test_every_result_has_a_seed_within_64_bits():
    assert faults(seed=MAX_SEED) == faults(seed=MAX_SEED - 19, numberResults=20) == []
    assert faults(seed=MAX_SEED - 18, numberResults=20) == [("invalidSeed", "seed")]
    assert faults(seed=MAX_SEED, numberResults=0) == [("invalidNumberResults", "numberResults")]
    assert faults(seed=9223372036854776000) == [("invalidSeed", "seed")]


def test_a_scheduler_that_makes_no_picture_is_refused_with_the_reason():
    with pytest.raises(RequestError, match="from a picture to noise") as refused:
        parse({**BASE, "scheduler": "DPMSolverMultistepInverse"})
    (fault,) = refused.value.faults
    assert (fault.code, fault.parameter) == ("unsupportedScheduler", "scheduler")
    assert len(fault.limits["allowedValues"]) == 74


@pytest.mark.parametrize(
    ("safety", "mode"),
    [
        ({}, "none"),
        ({"checkContent": True}, "fast"),
        ({"checkContent": True, "mode": "none"}, "fast"),
        ({"checkContent": True, "mode": "fast"}, "fast"),
        ({"checkContent": False, "mode": "fast"}, "none"),
    ],
)
def test_checking_content_means_the_fast_mode(safety, mode):
    request = parse({**BASE, "safety": safety})
    assert request.safety is not None and request.safety.effective_mode == mode


@pytest.mark.parametrize(("scale", "effective"), [(None, "rain"), (1.01, "rain"), (1, None), (0, None)])
def test_without_guidance_the_negative_prompt_is_ignored(scale, effective):
    options = {} if scale is None else {"CFGScale": scale}
    request = parse({**BASE, "negativePrompt": "rain", **options})
    assert request.effective_negative_prompt == effective
    assert request.effective_cfg_scale == (7.0 if scale is None else scale)


def test_the_scheduler_when_none_is_given():
    assert parse(BASE).effective_scheduler == "Default"
    assert parse({**BASE, "scheduler": "Heun"}).effective_scheduler == "Heun"
    assert parse(BASE).seed is None


@pytest.mark.parametrize("size", [64, 1024, 16384])
def test_sizes(size):
    assert faults(width=size, height=size) == []
    assert faults(width=size + 8, height=size - 1) == [("invalidWidth", "width"), ("invalidHeight", "height")]
