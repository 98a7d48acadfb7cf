"""How a field of the request is declared, and how its declaration is read back.

A field is written once, by `integer`, `number`, `text` or `option`. `specs` and `spec` give what was written to
everything that derives from it: validation messages, node widgets, help pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_INTEGER = 2**63 - 1
"""The largest integer of a request: what a signed 64-bit integer holds."""

REQUIRED: Any = ...
"""The default of a field that must be given."""

UNSET_NUMBER, UNSET_TEXT = -1, ""
"""What says "not given" where something must stand, as in a widget."""

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_SURROGATE_OR_NUL = re.compile("[\ud800-\udfff\0]")
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")


def is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8 and read by C code: it has no lone surrogate and no NUL."""
    return _SURROGATE_OR_NUL.search(value) is None


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("a lone surrogate or NUL")
    return value


def _uuid4(value: str) -> str:
    if not _UUID4.fullmatch(value):
        raise ValueError("no UUID v4")
    return value


def _http_url(value: str) -> str:
    # Both urlsplit and reading `port` raise ValueError themselves: for a malformed IPv6 host, for a port beyond 65535.
    parts = urlsplit(value)
    web = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not web or _SPACE_OR_CONTROL.search(value):
        raise ValueError("no http or https URL")
    return value


Text = Annotated[str, AfterValidator(_text)]
NonEmptyText = Annotated[str, Field(min_length=1), AfterValidator(_text)]
Uuid4 = Annotated[Text, AfterValidator(_uuid4)]
HttpUrl = Annotated[Text, AfterValidator(_http_url)]


class RequestObject(BaseModel):
    """One object of the hosted API: immutable, with the API's names as aliases and no field beside its own.

    Types are strict: an integer may stand for a number, and nothing else is converted.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=to_camel,
        # `model` is a name of the API; pydantic keeps the prefix `model_` for its own methods.
        protected_namespaces=(),
    )


def option(
    description: str,
    default: Any = None,
    *,
    alias: str | None = None,
    step: float | None = None,
    unit: str | None = None,
    format: str | None = None,
    **constraints: Any,
) -> Any:
    """A field of any type; `constraints` are pydantic's own (`ge`, `le`, `multiple_of`, `min_length`, `max_length`).

    `alias` is for a name that camel case does not give. `step` is what a widget moves by; values between are allowed.
    """
    notes = {name: note for name, note in (("step", step), ("unit", unit), ("format", format)) if note is not None}
    return Field(default, alias=alias, description=description, json_schema_extra=notes or None, **constraints)


def integer(description: str, default: int | None = None, *, min: int, max: int = MAX_INTEGER, **options: Any) -> Any:
    """An integer from `min` to `max`, both included."""
    return option(description, default, ge=min, le=max, **options)


def number(
    description: str, default: float | None = None, *, min: float, max: float, step: float = 0.01, **options: Any
) -> Any:
    """A real number from `min` to `max`, both included; NaN and the infinities lie outside of any range."""
    return option(description, default, ge=min, le=max, step=step, **options)


def text(
    description: str, default: Any = None, *, min: int | None = None, max: int | None = None, **options: Any
) -> Any:
    """A string of `min` to `max` Unicode characters."""
    return option(description, default, min_length=min, max_length=max, **options)


FieldType = Literal["string", "integer", "number", "boolean", "object", "array"]

_SCALARS: dict[Any, FieldType] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class FieldSpec:
    """What one field of a request object is, as its declaration says.

    `type` is the JSON type; `format` tells strings apart that are a "uuid", a "uri" or an "image". `model` is the class
    of an object, or of an array's items; an array without it holds strings. `min` and `max` bound numbers, `min_length`
    and `max_length` the characters of a string or the items of an array. `multiple_of` must be kept, `step` is only a
    widget's. `default` is None where the API names none.
    """

    alias: str
    python_name: str
    type: FieldType
    description: str
    required: bool
    default: Any = None
    min: float | None = None
    max: float | None = None
    step: float | None = None
    multiple_of: int | None = None
    unit: str | None = None
    choices: tuple[str, ...] | None = None
    min_length: int | None = None
    max_length: int | None = None
    format: str | None = None
    model: type[RequestObject] | None = None

    @property
    def unset(self) -> Any:
        """What a widget holds where the field is not given: its default, else -1 or "". None for a choice without a
        default, which has no value for that.
        """
        if self.default is not None or self.choices:
            return self.default
        return UNSET_TEXT if self.type == "string" else UNSET_NUMBER


@cache
def specs(cls: type[RequestObject]) -> Mapping[str, FieldSpec]:
    """All fields of `cls` by their API names, in the order of their declaration."""
    return MappingProxyType({field.alias: field for field in (_read(cls, name) for name in cls.model_fields)})


def spec(cls: type[RequestObject], name: str) -> FieldSpec:
    """The field of `cls` that the API, or Python, calls `name`. Raises KeyError when there is none."""
    for field in specs(cls).values():
        if name in (field.alias, field.python_name):
            return field
    raise KeyError(name)


def _read(cls: type[RequestObject], name: str) -> FieldSpec:
    field = cls.model_fields[name]
    json_type, choices, model = _type_of(field.annotation)
    notes = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    multiple_of = _constraint(field.metadata, "multiple_of")
    return FieldSpec(
        alias=field.alias or name,
        python_name=name,
        type=json_type,
        description=field.description or "",
        required=field.is_required(),
        default=None if field.is_required() else field.default,
        min=_constraint(field.metadata, "ge"),
        max=_constraint(field.metadata, "le"),
        step=notes.get("step", multiple_of),
        multiple_of=multiple_of,
        unit=notes.get("unit"),
        choices=choices,
        min_length=_constraint(field.metadata, "min_length"),
        max_length=_constraint(field.metadata, "max_length"),
        format=notes.get("format"),
        model=model,
    )


def _constraint(metadata: list[Any], name: str) -> Any:
    return next((getattr(entry, name) for entry in metadata if hasattr(entry, name)), None)


def _type_of(annotation: Any) -> tuple[FieldType, tuple[str, ...] | None, type[RequestObject] | None]:
    """The JSON type of an annotation, its allowed values, and the class of the object or of the items."""
    if get_origin(annotation) is Annotated:
        return _type_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "string", get_args(annotation), None
    if get_origin(annotation) is tuple:
        return "array", None, _type_of(get_args(annotation)[0])[2]
    members = [member for member in get_args(annotation) if member is not NoneType]
    if members:
        return _type_of(members[0])
    if issubclass(annotation, RequestObject):
        return "object", None, annotation
    return _SCALARS[annotation], None, None
