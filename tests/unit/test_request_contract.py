"""The request's fields and its JSON Schema against the API's page."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from sd3_local.pipelines.fields import MAX_INTEGER, FieldSpec, spec, specs
from sd3_local.pipelines.request import MAX_SEED, ImageInference, Lora, Ultralytics
from sd3_local.pipelines.scheduler_names import SCHEDULER_NAMES, UNSUPPORTED_SCHEDULERS
from sd3_local.pipelines.schema import json_schema

from tests.strategies import FIELDS, requests

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "tests" / "data" / "parameters.json"
CONTRACT = {entry["path"]: entry for entry in json.loads(TABLE.read_text())["parameters"]}

# Where the models differ from the page on purpose, and the only places where they may.
DIFFERENCES: dict[str, dict[str, Any]] = {
    # The page's number is 2^63 - 1 after rounding to a JSON number, and does not fit a 64-bit integer.
    "seed": {"max": MAX_SEED},
    # Any model runs here, not only the page's own.
    "model": {"minLength": 1, "value": None},
    # An empty name or picture is never meant (nor is one among guideImages, whose items the table does not describe).
    **{f"{group}[].model": {"minLength": 1} for group in ("lora", "controlNet", "ipAdapters")},
    **{path: {"minLength": 1} for path in ("inputs.seedImage", "inputs.maskImage", "controlNet[].guideImage")},
    # What the VAE and the transformer can shape.
    **{path: {"min": 64, "multiple_of": 16, "step": 16} for path in ("width", "height")},
}
# What the table says beyond types and ranges; the rules have their own tests.
REMARKS = {"path", "group", "rule", "direction"}


def as_contract(field: FieldSpec) -> dict[str, Any]:
    """A field in the contract's words."""
    kind: str = field.type
    if field.format == "image":
        kind = "array of image" if field.type == "array" else "image"
    told = {
        "type": kind,
        "required": field.required or None,
        "default": field.default,
        "min": field.min,
        # The page leaves some integers open; here they end with 64 bits.
        "max": None if field.max == MAX_INTEGER and field.alias != "seed" else field.max,
        "step": field.step,
        "multiple_of": field.multiple_of,
        "enum": None if field.choices is None else list(field.choices),
        "minItems" if field.type == "array" else "minLength": field.min_length,
        "maxItems" if field.type == "array" else "maxLength": field.max_length,
        "format": {"uuid": "uuid4", "uri": "uri"}.get(field.format or ""),
    }
    if told["enum"] == ["imageInference"]:
        told["const"] = told.pop("enum")[0]
    return {name: value for name, value in told.items() if value is not None}


def test_the_models_have_the_contracts_fields_and_no_others():
    assert set(FIELDS) == set(CONTRACT)


@pytest.mark.parametrize("path", CONTRACT)
def test_a_field_is_what_the_contract_says(path):
    expected = {name: value for name, value in CONTRACT[path].items() if name not in REMARKS}
    expected.update(DIFFERENCES.get(path, {}))
    assert as_contract(FIELDS[path]) == {name: value for name, value in expected.items() if value is not None}


def test_every_named_difference_is_one():
    for path, difference in DIFFERENCES.items():
        assert all(CONTRACT[path].get(name) != value for name, value in difference.items()), path


@pytest.mark.parametrize("path", CONTRACT)
def test_a_field_is_described_in_one_line(path):
    description = FIELDS[path].description
    assert description[0].isupper() and description.endswith(".") and "\n" not in description and len(description) < 160


def test_a_field_is_found_by_either_name():
    assert spec(ImageInference, "CFGScale") is spec(ImageInference, "cfg_scale")
    assert spec(ImageInference, "CFGScale").max == 30
    assert spec(Ultralytics, "CFGScale").max == 50
    assert spec(ImageInference, "width").unit == "px"
    assert spec(ImageInference, "lora").model is Lora
    with pytest.raises(KeyError, match="cfg"):
        spec(ImageInference, "cfg")


def test_schedulers():
    assert len(SCHEDULER_NAMES) == len(set(SCHEDULER_NAMES)) == 75
    assert set(UNSUPPORTED_SCHEDULERS) < set(SCHEDULER_NAMES)


def test_a_request_is_checked_without_torch():
    checked = "from tools.pack import import_pack; import_pack(); import sd3_local.pipelines.parse, sys"
    heavy = "print([name for name in ('torch', 'diffusers', 'transformers', 'numpy') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", f"{checked}; {heavy}"], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout.strip() == "[]", told.stderr


@settings(deadline=None)
@given(requests())
def test_a_valid_request_keeps_to_the_json_schema(wire):
    schema = json_schema()
    assert not breaches(wire, schema, schema)


def breaches(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> list[str]:
    """Where `value` breaks the keywords that the schema of a request uses."""
    if "$ref" in schema:
        return breaches(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if not isinstance(value, types[schema["type"]]):
        return [path]
    size = value if isinstance(value, int | float) else len(value)
    low = schema.get("minimum", schema.get("minLength", schema.get("minItems", -math.inf)))
    high = schema.get("maximum", schema.get("maxLength", math.inf))
    found = [] if low <= size <= high else [path]
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(path)
    if schema["type"] == "integer" and value % schema.get("multipleOf", 1):
        found.append(path)
    for index, item in enumerate(value if schema["type"] == "array" else ()):
        found += breaches(item, schema["items"], root, f"{path}[{index}]")
    if schema["type"] == "object":
        found += [name for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            found += breaches(item, schema["properties"][name], root, f"{path}.{name}")
    return found


def test_the_json_schema_says_what_the_fields_say():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["taskType", "taskUUID", "model"]
    told = {"": schema, **schema["$defs"]}
    for cls in (ImageInference, *(field.model for field in FIELDS.values() if field.model)):
        entry = told["" if cls is ImageInference else cls.__name__]
        assert entry["additionalProperties"] is False
        assert set(entry["properties"]) == set(specs(cls))
        for name, field in specs(cls).items():
            keywords = entry["properties"][name]
            # A description that an object's class has too is told only there.
            keywords = {**schema["$defs"].get(keywords.get("$ref", "").rpartition("/")[2], {}), **keywords}
            assert keywords["description"] == field.description
            assert keywords.get("default") == field.default
            assert (keywords.get("minimum"), keywords.get("maximum")) == (field.min, field.max)
            assert keywords.get("multipleOf") == field.multiple_of
            assert keywords.get("unit") == field.unit
            if field.choices and len(field.choices) > 1:
                assert keywords["enum"] == list(field.choices)
    assert "null" not in json.dumps(schema)
