"""What parsing makes of good and of bad requests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.fields import MAX_INTEGER, specs
from sd3_local.pipelines.parse import dump, parse, parse_fields, parse_part
from sd3_local.pipelines.request import (
    AcceleratorOptions,
    ControlNet,
    ImageInference,
    Inputs,
    IPAdapter,
    Lora,
    Outpaint,
    Safety,
    random_seed,
)
from sd3_local.pipelines.scheduler_names import SCHEDULER_NAMES

from tests.strategies import BASE, FIELDS, bad_values, place, requests

EXAMPLES = sorted((Path(__file__).parent.parent / "data" / "examples").glob("*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_pages_examples_parse_and_come_back(path):
    wire = json.loads(path.read_text())["request"]
    request = parse(wire)
    assert (request.steps, request.cfg_scale, request.model) == (wire["steps"], 7.5, "runware:5@1")
    assert dump(request) == wire
    assert parse(dump(request)) == request


@settings(deadline=None)
@given(requests())
def test_a_valid_request_comes_back_from_the_wire(wire):
    request = parse(wire)
    dumped = dump(request)
    assert dumped == wire
    assert parse(json.loads(json.dumps(dumped))) == request
    assert hash(parse(wire)) == hash(request)


def check_faults(error: RequestError) -> None:
    """What every refusal keeps to, whatever was refused."""
    for fault in error.faults:
        assert len(fault.message) < 500
        assert fault.parameter in fault.message
        assert fault.message.encode()
        assert fault.code.startswith(("invalid", "missing", "unsupported", "conflict", "incompatible"))
        json.dumps(dict(fault.limits), allow_nan=False)
    assert len({(fault.code, fault.parameter) for fault in error.faults}) == len(error.faults)


@pytest.mark.parametrize("path", FIELDS)
def test_a_bad_value_is_refused_by_the_name_of_its_field(path):
    for value in bad_values(FIELDS[path]):
        wire, told = place(path, value)
        with pytest.raises(RequestError) as refused:
            parse(wire)
        # An item of an array may be what is wrong with it.
        parameters = {fault.parameter for fault in refused.value.faults}
        assert parameters == {told} or (isinstance(value, list) and value and parameters == {f"{told}[0]"}), repr(
            value
        )[:80]
        assert {fault.code for fault in refused.value.faults} == {
            "invalid" + FIELDS[path].alias[0].upper() + FIELDS[path].alias[1:]
        }
        check_faults(refused.value)


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.type in ("integer", "number")])
def test_the_ends_of_a_range_are_allowed(path):
    field = FIELDS[path]
    for value in (field.min, field.max // (field.multiple_of or 1) * (field.multiple_of or 1)):
        wire, _ = place(path, value)
        # Without the other fields, such as the steps that bound windows, the range alone decides.
        top = path.partition(".")[0].removesuffix("[]")
        assert parse_fields(ImageInference, {top: wire[top]})


@settings(deadline=None)
@given(st.data())
def test_several_faults_are_told_together(data):
    paths = [path for path, field in FIELDS.items() if "." not in path]
    chosen = data.draw(st.lists(st.sampled_from(paths), min_size=2, max_size=8, unique=True))
    wire, expected = {**BASE, "inputs": {"seedImage": "some image"}}, set()
    for path in chosen:
        bad = bad_values(FIELDS[path])
        # A non-empty array is told by its items, which the test of single faults covers.
        value = bad[data.draw(st.integers(0, len(bad) - 1))]
        wire[path] = None if isinstance(value, list) else value
        expected.add(path)
    unknown = data.draw(st.text(min_size=1, max_size=20).filter(lambda name: name not in specs(ImageInference)))
    wire[unknown] = 1
    with pytest.raises(RequestError) as refused:
        parse(wire)
    told = {fault.parameter for fault in refused.value.faults if fault.code.startswith("invalid")}
    assert told == expected
    assert [fault.code for fault in refused.value.faults].count("unsupportedParameter") == 1
    check_faults(refused.value)


def test_faults_of_nested_objects_and_rules_come_together():
    wire = {
        **BASE,
        "steps": 20,
        "CFGScale": "7",
        "lora": [{"model": "a", "weight": 9}, {"weight": 1}, 5],
        "controlNet": [
            {"model": "a", "guideImage": "b", "startStep": 9, "endStep": 8},
            {"model": "a", "guideImage": "b", "endStep": 21},
        ],
        "inputs": {"maskImage": "c"},
        "speed": 3,
    }
    del wire["model"]
    with pytest.raises(RequestError) as refused:
        parse(wire)
    assert {(fault.code, fault.parameter) for fault in refused.value.faults} == {
        ("missingModel", "model"),
        ("invalidCFGScale", "CFGScale"),
        ("invalidWeight", "lora[0].weight"),
        ("missingModel", "lora[1].model"),
        ("invalidLora", "lora[2]"),
        ("invalidStartStep", "controlNet[0].startStep"),
        ("invalidEndStep", "controlNet[1].endStep"),
        ("missingSeedImage", "inputs.seedImage"),
        ("unsupportedParameter", "speed"),
    }
    check_faults(refused.value)


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.required])
def test_a_required_field_is_missed(path):
    wire, told = place(path, "some value")
    target: Any = wire
    for name in path.split(".")[:-1]:
        target = target[name[:-2]][0]
    del target[path.rpartition(".")[2]]
    with pytest.raises(RequestError) as refused:
        parse(wire)
    assert [(fault.code[:7], fault.parameter) for fault in refused.value.faults] == [("missing", told)]


@pytest.mark.parametrize(
    "name", ["speed", "cfg_scale", "cfgScale", "task_uuid", "", "\ud800", "x" * 10_000, 3, None, ("a",)]
)
def test_an_unknown_name_is_refused(name):
    with pytest.raises(RequestError) as refused:
        parse({**BASE, name: 1})
    (fault,) = refused.value.faults
    assert fault.code == "unsupportedParameter" and len(fault.parameter) < 120
    fault.parameter.encode()
    check_faults(refused.value)


def test_a_near_miss_is_put_right():
    with pytest.raises(RequestError, match="did you mean CFGScale"):
        parse({**BASE, "cfg_scale": 7})
    with pytest.raises(RequestError, match="'Euler a'"):
        parse({**BASE, "scheduler": "Eular a"})


@pytest.mark.parametrize("data", [None, 3, "text", [], [BASE], b"{}"])
def test_what_is_no_object_is_no_request(data):
    with pytest.raises(RequestError) as refused:
        parse(data)
    (fault,) = refused.value.faults
    assert (fault.code, fault.parameter) == ("invalidRequest", "")


def test_limits_are_for_programs():
    with pytest.raises(RequestError) as refused:
        parse({**BASE, "width": 1000, "scheduler": "none", "positivePrompt": "a", "lora": [], "CFGScale": 31})
    limits = {fault.parameter: fault.limits for fault in refused.value.faults}
    assert limits["width"] == {"type": "integer", "min": 64, "max": MAX_INTEGER, "multiplier": 16}
    assert limits["CFGScale"] == {"type": "number", "min": 0, "max": 30}
    assert limits["positivePrompt"] == {"type": "string", "minLength": 2, "maxLength": 3000}
    assert limits["lora"] == {"type": "array", "minItems": 1}
    assert limits["scheduler"]["allowedValues"] == list(SCHEDULER_NAMES)


def test_one_object_is_parsed_at_its_place():
    assert parse_part(Lora, {"model": "a", "weight": 1}) == Lora(model="a", weight=1.0)
    with pytest.raises(RequestError) as refused:
        parse_part(Lora, {"weight": 5}, "lora[2]")
    assert [fault.parameter for fault in refused.value.faults] == ["lora[2].model", "lora[2].weight"]
    with pytest.raises(RequestError) as refused:
        parse_part(Lora, 5, "lora[2]")
    assert [(fault.code, fault.parameter) for fault in refused.value.faults] == [("invalidLora", "lora[2]")]


def test_some_fields_are_parsed_without_the_others():
    taken = parse_fields(ImageInference, {"CFGScale": 7, "lora": [{"model": "a"}], "safety": {"checkContent": True}})
    assert taken == {"CFGScale": 7, "lora": (Lora(model="a"),), "safety": Safety(check_content=True)}
    request = parse({**BASE, **taken})
    assert (request.cfg_scale, request.lora) == (7.0, (Lora(model="a"),))
    with pytest.raises(RequestError) as refused:
        parse_fields(ImageInference, {"CFGScale": 70, "steps": 0, "controlNet": [{}]})
    assert {fault.parameter for fault in refused.value.faults} == {
        "CFGScale", "steps", "controlNet[0].model", "controlNet[0].guideImage",
    }  # fmt: skip


def test_models_are_taken_like_their_wire_form():
    adapter = IPAdapter(model="a", guide_images=("b", "c"))
    request = parse({**BASE, "ipAdapters": [adapter], "outpaint": Outpaint(top=64), "inputs": Inputs(seed_image="d")})
    assert request.ip_adapters == (adapter,)
    assert parse(dump(request)) == request
    # Made directly, a model has not been asked how its fields fit together.
    window = ControlNet(model="a", guide_image="b", start_step=5, end_step=2)
    with pytest.raises(RequestError, match="startStep"):
        parse({**BASE, "controlNet": [window]})


def test_a_request_cannot_be_changed():
    request = parse(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        request.steps = 3


@pytest.mark.parametrize(
    "given",
    [
        {"fb_cache": 1},
        {"fb_cache_threshold": math.nan},
        {"cache_end_step": "3"},
        {"cacheEnd": 3},
        {"cache_end_step": 2.0},
    ],
)
def test_a_model_made_directly_is_as_strict(given):
    with pytest.raises(ValidationError):
        AcceleratorOptions(**given)


def test_random_seeds_are_32_bit_and_differ():
    seeds = {random_seed() for _ in range(100)}
    assert len(seeds) > 90 and all(0 <= seed < 2**32 for seed in seeds)
