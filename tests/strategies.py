"""Hypothesis strategies for requests, drawn from the very declarations that the pack derives everything from."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from sd3_local.pipelines.fields import FieldSpec, RequestObject, specs
from sd3_local.pipelines.request import AcceleratorOptions, ControlNet, ImageInference, Inputs
from sd3_local.pipelines.rules import CACHE_WINDOW, CACHES, CONTROL_WINDOW, Window
from sd3_local.pipelines.scheduler_names import UNSUPPORTED_SCHEDULERS

BASE: dict[str, Any] = {
    "taskType": "imageInference",
    "taskUUID": "a3c1f0de-5a9b-4c43-8f7e-0d6b1c2e3f40",
    "model": "runware:5@1",
}
"""The shortest request."""

# What is text to the pack: any Unicode but NUL and lone surrogates.
TEXT = st.characters(exclude_characters="\0", exclude_categories=("Cs",))

LARGEST_UNBOUNDED = 2**20


def fields(cls: type[RequestObject] = ImageInference, path: str = "") -> Iterator[tuple[str, FieldSpec]]:
    """Every field of a request under the path that the contract gives it."""
    for name, field in specs(cls).items():
        yield path + name, field
        if field.model is not None:
            yield from fields(field.model, f"{path}{name}{'[]' if field.type == 'array' else ''}.")


FIELDS = dict(fields())


def values(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Valid values of one field, on the wire."""
    if spec.choices is not None:
        return st.sampled_from([choice for choice in spec.choices if choice not in UNSUPPORTED_SCHEDULERS])
    if spec.format == "uuid":
        return st.uuids(version=4).map(str)
    if spec.format == "uri":
        return st.sampled_from(["https://a.example/x?y=1", "http://127.0.0.1:8188/hook", "http://[::1]/"])
    if spec.type == "boolean":
        return st.booleans()
    if spec.type == "integer":
        unit = spec.multiple_of or 1
        return st.integers(-(-spec.min // unit), spec.max // unit).map(lambda count: count * unit)
    if spec.type == "number":
        return st.floats(spec.min, spec.max) | st.integers(math.ceil(spec.min), math.floor(spec.max))
    if spec.type == "string":
        return st.text(TEXT, min_size=spec.min_length or 0, max_size=min(spec.max_length or 40, 40))
    items = objects(spec.model) if spec.model else st.text(TEXT, min_size=1, max_size=10)
    return items if spec.type == "object" else st.lists(items, min_size=1, max_size=3)


@st.composite
def objects(draw: st.DrawFn, cls: type[RequestObject], steps: int | None = None) -> dict[str, Any]:
    """Valid objects of class `cls`, on the wire, with any subset of the optional fields; windows fit `steps`."""
    windows = {ControlNet: CONTROL_WINDOW, AcceleratorOptions: CACHE_WINDOW}
    apart = windows.get(cls, ())
    drawn = {
        name: draw(values(spec))
        for name, spec in specs(cls).items()
        if name not in apart and (spec.required or draw(st.booleans()))
    }
    if cls in windows:
        drawn.update(draw(_window(windows[cls], steps or 1)))
    if cls is AcceleratorOptions:
        kept = draw(st.sampled_from(CACHES))
        drawn.update({name: False for name in CACHES if name in drawn and name != kept})
    if cls is Inputs and "maskImage" in drawn:
        drawn.setdefault("seedImage", "https://a.example/seed.png")
    return drawn


@st.composite
def _window(draw: st.DrawFn, names: Window, steps: int) -> dict[str, int]:
    in_percent = draw(st.booleans())
    length = 100 if in_percent else steps
    start = draw(st.none() | st.integers(0, length - 1))
    end = draw(st.none() | st.integers((start or 0) + 1, length))
    bounds = (names.start_percentage, names.end_percentage) if in_percent else (names.start, names.end)
    return {name: bound for name, bound in zip(bounds, (start, end), strict=True) if bound is not None}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Valid requests, on the wire, with any subset of all options."""
    steps = draw(st.none() | st.integers(1, LARGEST_UNBOUNDED))
    drawn = {} if steps is None else {"steps": steps}
    for name, spec in specs(ImageInference).items():
        if name == "steps" or not (spec.required or draw(st.booleans())):
            continue
        if spec.type == "object":
            drawn[name] = draw(objects(spec.model, steps or 28))
        elif spec.type == "array":
            drawn[name] = draw(st.lists(objects(spec.model, steps or 28), min_size=1, max_size=3))
        else:
            drawn[name] = draw(values(spec))
    if "seed" in drawn:
        drawn["seed"] = min(drawn["seed"], 2**63 - drawn.get("numberResults", 1))
    if "ttl" in drawn:
        drawn["outputType"] = "URL"
    if "outpaint" in drawn:
        drawn.setdefault("inputs", {}).setdefault("seedImage", "https://a.example/seed.png")
    return drawn


def bad_values(spec: FieldSpec) -> list[Any]:
    """Values that the field must refuse, whatever the rest of the request says.

    Some have no readable repr, so a test draws their index and not the values themselves.
    """
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    by_type = {
        "string": ["text", "28", "x" * 1_000_000],
        "integer": [7, 10**5000],
        "number": [28.5, 28.0, math.nan, math.inf, -math.inf],
        "boolean": [True, False],
        "object": [{}, {"no such name": [{}]}],
        "array": [[None], [[[]]], deep],
    }
    fitting = ("number", "integer") if spec.type == "number" else (spec.type,)
    bad = [None, b"bytes", object(), {1, 2}, []]
    bad += [value for json_type, examples in by_type.items() if json_type not in fitting for value in examples]
    if spec.type in ("integer", "number"):
        bad += [10**400, -(10**5000), math.nan, math.inf, -math.inf, spec.max + 1, spec.min - 1]
    if spec.multiple_of is not None:
        bad += [spec.min + 1, spec.min + spec.multiple_of - 1]
    if spec.type == "string":
        bad += ["\0\0\0", "ab\ud800", "\udfff" * 100_000]
        if spec.choices or spec.format in ("uuid", "uri"):
            bad += [
                "",
                "no such thing",
                "x" * 1_000_000,
                str(uuid.UUID(int=0)),
                "https://",
                "http://a:99999",
                "http://a b",
            ]
        if spec.min_length:
            bad.append("x" * (spec.min_length - 1))
        if spec.max_length:
            bad.append("x" * (spec.max_length + 1))
    return bad


def place(path: str, value: Any) -> tuple[dict[str, Any], str]:
    """A request that is right but for `value` at a contract path, and the path as an error tells it."""
    wire = deepcopy(BASE)
    if path.startswith("outpaint"):
        wire["inputs"] = {"seedImage": "some image"}
    target, names = wire, path.split(".")
    for name in names[:-1]:
        if name.endswith("[]"):
            minimal = {"model": "some model", "guideImage": "some image", "guideImages": ["some image"]}
            model = FIELDS[name[:-2]].model
            target[name[:-2]] = [{key: item for key, item in minimal.items() if key in specs(model)}]
            target = target[name[:-2]][0]
        else:
            target = target.setdefault(name, {})
    target[names[-1]] = value
    return wire, path.replace("[]", "[0]")
