"""The OpenAPI document: what it lets through is what the endpoint takes and answers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from sd3_local.api.openapi import document
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.parse import parse

from tests.strategies import BASE, FIELDS, bad_values, place, requests

DOCUMENT = document("http://127.0.0.1:8188")
EXAMPLES = sorted((Path(__file__).parents[1] / "data" / "examples").glob("*"))


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"})


TASKS, RESPONSE, FAILURE = schema("Tasks"), schema("Response"), schema("Failure")


def fields(part: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Every field of a schema under the path that the contract gives it."""
    found = {}
    for name, field in part["properties"].items():
        found[path + name] = field
        inner = field.get("items", field)
        if "$ref" in inner:
            named = DOCUMENT["components"]["schemas"][inner["$ref"].rpartition("/")[2]]
            found.update(fields(named, f"{path}{name}{'[]' if 'items' in field else ''}."))
    return found


def wire(value: Any) -> bool:
    """Whether JSON can say it."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def test_it_is_an_openapi_document() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["servers"] == [{"url": "http://127.0.0.1:8188"}]
    broken = deepcopy(DOCUMENT)
    del broken["paths"]["/sd3local/images/{name}"]["get"]["parameters"]
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_every_field_of_the_vocabulary_is_in_it() -> None:
    told = fields(DOCUMENT["components"]["schemas"]["ImageInference"])
    assert set(told) == set(FIELDS)
    assert all(told[path]["description"] == field.description for path, field in FIELDS.items() if not field.model)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_s_examples_keep_to_it(path: Path) -> None:
    example = json.loads(path.read_text("utf-8"))
    TASKS.validate(example["request"])
    TASKS.validate([example["request"], {"taskType": "ping", "ping": True}])
    RESPONSE.validate({"data": [example["response"]]})
    for broken in ({"seed": -1}, {"steps": "28"}, {"taskUUID": None}, {"cfgScale": 7}, {"taskType": "videoInference"}):
        assert not TASKS.is_valid([{**example["request"], **broken}])
    del example["request"]["model"]
    assert not TASKS.is_valid(example["request"])
    for broken in ({"seed": "1"}, {"cost": -1}, {"extra": 1}, {"taskType": "getResponse"}):
        assert not RESPONSE.is_valid({"data": [{**example["response"], **broken}]})


@pytest.mark.parametrize(
    "task",
    [
        {"taskType": "ping"},
        {"taskType": "ping", "ping": True, "taskUUID": BASE["taskUUID"]},
        {"taskType": "authentication", "apiKey": "k"},
        {"taskType": "getResponse", "taskUUID": BASE["taskUUID"]},
        {"taskType": "imageUpload", "taskUUID": BASE["taskUUID"], "image": "data:image/png;base64,AAAA"},
        {"taskType": "modelSearch", "taskUUID": BASE["taskUUID"], "search": "nano", "category": "lora"},
    ],
    ids=lambda task: task["taskType"],
)
def test_the_other_tasks_keep_to_it(task: dict[str, Any]) -> None:
    TASKS.validate([task])
    assert task["taskType"] in DOCUMENT["components"]["schemas"]["Task"]["discriminator"]["mapping"]
    assert not TASKS.is_valid([{**task, "taskType": "imageInference"}])
    assert not TASKS.is_valid([{**task, "unknown": 1}])


@settings(deadline=None, max_examples=50)
@given(requests())
def test_what_the_pack_takes_keeps_to_it(request: dict[str, Any]) -> None:
    TASKS.validate([request])


@pytest.mark.parametrize("path", FIELDS)
def test_what_it_refuses_the_pack_refuses_with_an_error_that_keeps_to_it(path: str) -> None:
    refused = 0
    for value in filter(wire, bad_values(FIELDS[path])):
        request, parameter = place(path, value)
        # Formats, and what fields demand of each other, a schema leaves to the endpoint.
        refused += not TASKS.is_valid([request])
        with pytest.raises(RequestError) as raised:
            parse(request)
        errors = [
            {"code": fault.code, "message": fault.message, "parameter": fault.parameter, **fault.limits}
            for fault in raised.value.faults
        ]
        FAILURE.validate({"errors": errors})
        assert any(error["parameter"].startswith(parameter) for error in errors)
    assert refused > 0


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.min is not None])
def test_it_has_the_ends_of_every_range(path: str) -> None:
    field = FIELDS[path]
    unit = field.multiple_of or (1 if field.type == "integer" else 0.01)
    least, most = field.min, field.max - field.max % (field.multiple_of or 1)
    assert all(TASKS.is_valid(place(path, value)[0]) for value in (least, most))
    assert not any(TASKS.is_valid(place(path, value)[0]) for value in (least - unit, most + unit))


def test_answers_without_content_do_not_keep_to_it() -> None:
    # A client takes an empty array of errors for an error.
    assert not RESPONSE.is_valid({"data": [{"taskType": "ping", "pong": True}], "errors": []})
    assert not RESPONSE.is_valid({"data": []})
    assert not RESPONSE.is_valid({"errors": [{"code": "invalidSeed", "message": "It is wrong.", "parameter": "seed"}]})
    assert not FAILURE.is_valid({"errors": [{"code": "invalidSeed", "message": "", "parameter": "seed"}]})
    assert not FAILURE.is_valid({"errors": [{"code": "invalidSeed", "message": "It is wrong."}]})
