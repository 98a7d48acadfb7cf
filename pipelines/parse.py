"""From the wire to a request and back, with everything that is wrong told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from .errors import SHOWN, Fault, RequestError, show
from .fields import MAX_INTEGER, FieldSpec, RequestObject, is_text, specs
from .request import ImageInference
from .rules import code, faults_of, field_of, join

Part = TypeVar("Part", bound=RequestObject)

_LISTED = 15
"""Allowed values that a message lists; more are in the fault's `allowedValues`."""


def parse(data: Mapping[str, Any]) -> ImageInference:
    """The request that `data` holds under the API's names.

    Objects may be mappings or already their models, arrays lists or tuples. Raises RequestError with every fault of
    every field and every rule that `data` breaks, each once; a fault in one field does not hide those of others.
    """
    return parse_part(ImageInference, data)


def parse_part(cls: type[Part], data: Mapping[str, Any] | Part, path: str = "") -> Part:
    """One object of a request, such as a `Lora`, that lies at `path` in it. Raises RequestError like `parse`."""
    checked = _check(cls, data, path)
    _raise(checked.faults)
    return cls.model_validate(checked.given)


def parse_fields(cls: type[RequestObject], data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Those fields of an object that `data` holds, by the API's names, with arrays as tuples and objects as models.

    The other fields belong to someone else: none is missed, and rules that need one of them are left to the whole.
    Raises RequestError like `parse`.
    """
    checked = _check(cls, data, path, complete=False)
    _raise(checked.faults)
    return checked.given


def dump(request: RequestObject) -> dict[str, Any]:
    """The wire form: JSON types under the API's names, without fields that were not set. `parse` turns it back."""
    return request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


@dataclass
class _Checked:
    """An object's valid fields (`given`), what rules may know of it (`known`, see rules.py) and its faults."""

    given: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def _raise(faults: Iterable[Fault]) -> None:
    # Two rules may find the same fault: a mask and outpainting both miss the same seed image.
    once = {(fault.code, fault.parameter): fault for fault in reversed(list(faults))}
    if once:
        raise RequestError.of(reversed(once.values()))


def _check(cls: type[RequestObject], data: Any, path: str, complete: bool = True) -> _Checked:
    if isinstance(data, cls):
        data = dump(data)
    checked = _Checked()
    if not isinstance(data, Mapping):
        name = field_of(path) or "request"
        told = f"{path or 'The request'} is {show(data)}; it must be an object: give it as names and values."
        checked.faults.append(Fault(code("invalid", name), told, path, {"type": "object"}))
        return checked

    fields = specs(cls)
    checked.faults += [_unknown(cls, key, path) for key in data if key not in fields]
    for name, spec in fields.items():
        here = join(path, name)
        if name in data:
            _take(checked, spec, data[name], here)
        elif not complete:
            continue
        elif spec.required:
            checked.faults.append(
                Fault(code("missing", name), f"{here} is missing; give {_allowed(spec)}.", here, _limits(spec))
            )
        else:
            checked.known[name] = spec.default

    _validate(checked, cls, path)
    checked.faults += faults_of(cls, checked.known, path)
    return checked


def _take(checked: _Checked, spec: FieldSpec, value: Any, path: str) -> None:
    """Adds one field: objects, and arrays of them, once they are checked; all else for `_validate` to judge."""
    name = spec.alias
    if value is None or (spec.type == "array" and not isinstance(value, (list, tuple))):
        checked.faults.append(_invalid(spec, value, path))
    elif spec.model is None:
        checked.given[name] = checked.known[name] = tuple(value) if spec.type == "array" else value
    elif spec.type == "object":
        part = _check(spec.model, value, path)
        if isinstance(value, (Mapping, spec.model)):
            checked.known[name] = part.known
        checked.faults += part.faults
        if not part.faults:
            checked.given[name] = spec.model.model_validate(part.given)
    else:
        parts = [_check(spec.model, item, f"{path}[{index}]") for index, item in enumerate(value)]
        checked.known[name] = [part.known for part in parts]
        faults = [fault for part in parts for fault in part.faults]
        checked.faults += faults
        if not faults:
            checked.given[name] = tuple(spec.model.model_validate(part.given) for part in parts)


def _validate(checked: _Checked, cls: type[RequestObject], path: str) -> None:
    """Lets pydantic judge the fields that were given; the wrong ones become faults and are known no more."""
    try:
        cls.model_validate(checked.given)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_context=False):
            name, *rest = error["loc"]
            spec, value = specs(cls)[str(name)], error["input"]
            # A required field that was not given, or whose own content is at fault, is not this function's matter.
            # An array that holds something is long enough, but pydantic counts only its good items.
            if error["type"] == "missing" or (spec.type == "array" and not rest and value):
                continue
            here = join(path, spec.alias) + "".join(f"[{index}]" for index in rest)
            checked.faults.append(_invalid(spec, value, here))
            checked.known.pop(name, None)


def _unknown(cls: type[RequestObject], key: Any, path: str) -> Fault:
    # A key may be anything, of any length; a path must be short and printable.
    name = key if isinstance(key, str) and key.isprintable() and len(key) <= SHOWN else show(key)
    similar = difflib.get_close_matches(_plain(name), [_plain(known) for known in specs(cls)], n=1)
    meant = [f"; did you mean {known}?" for known in specs(cls) if similar == [_plain(known)]]
    told = f"{join(path, name)} is no parameter{''.join(meant) or ' here; leave it out.'}"
    return Fault("unsupportedParameter", told, join(path, name), {"allowedValues": list(specs(cls))})


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _invalid(spec: FieldSpec, value: Any, path: str) -> Fault:
    item = spec.type == "array" and path.endswith("]")
    must = "a non-empty string" if item else _allowed(spec, value)
    if isinstance(value, str) and not is_text(value):
        must += ", without NUL characters and lone surrogates"
    remedy = "correct it"
    if not spec.required:
        remedy += " or leave it out" + (f", which means {show(spec.default)}" if spec.default is not None else "")
    limits = {"type": "string", "minLength": 1} if item else _limits(spec)
    return Fault(code("invalid", spec.alias), f"{path} is {show(value)}; it must be {must}; {remedy}.", path, limits)


def _allowed(spec: FieldSpec, value: Any = None) -> str:
    """What a field takes, in words that follow "it must be" and "give"."""
    if spec.choices is not None:
        if len(spec.choices) <= _LISTED:
            return "one of " + ", ".join(map(repr, spec.choices))
        similar = difflib.get_close_matches(value[:SHOWN], spec.choices, n=2) if isinstance(value, str) else []
        hint = f", such as {' or '.join(map(repr, similar or spec.choices[:2]))}"
        return f"one of {len(spec.choices)} names" + hint
    if spec.format == "uuid":
        return "a UUID v4"
    if spec.format == "uri":
        return "an http or https URL"
    if spec.type == "string":
        if spec.max_length is not None:
            return f"a string of {spec.min_length} to {spec.max_length} characters"
        return "a non-empty string" if spec.min_length else "a string"
    if spec.type == "array":
        return f"an array of at least {spec.min_length} {'string' if spec.model is None else 'object'}"
    if spec.type in ("integer", "number"):
        kind = "an integer" if spec.type == "integer" else "a number"
        if spec.multiple_of is not None:
            kind = f"a multiple of {spec.multiple_of}"
        # Only who passed the end of 64 bits needs to hear of it.
        open_ended = spec.max == MAX_INTEGER and not (isinstance(value, int) and value > MAX_INTEGER)
        return f"{kind} of at least {spec.min}" if open_ended else f"{kind} from {spec.min} to {spec.max}"
    return "true or false" if spec.type == "boolean" else "an object"


def _limits(spec: FieldSpec) -> dict[str, Any]:
    """What a field takes, for programs."""
    length = ("minItems", "maxItems") if spec.type == "array" else ("minLength", "maxLength")
    limits = {
        "type": spec.type,
        "min": spec.min,
        "max": spec.max,
        "multiplier": spec.multiple_of,
        length[0]: spec.min_length,
        length[1]: spec.max_length,
        "allowedValues": None if spec.choices is None else list(spec.choices),
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
