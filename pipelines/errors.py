"""The one exception that tells a user what is wrong with a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN = 80
"""Characters of a value that a message repeats."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a request.

    `code` keeps the hosted API's prefixes (invalid, missing, unsupported, conflict, incompatible), because its clients
    sort errors by them. `parameter` is the path of the field in the request, such as `controlNet[1].endStep`. `limits`
    is what is allowed, by the API's names: `type`, `min`, `max`, `multiplier`, `allowedValues`; and by JSON Schema's
    `minLength`, `maxLength`, `minItems` where the API has none.
    """

    code: str
    message: str
    parameter: str
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        # A message that names its parameter already needs no heading.
        return self.message if self.parameter in self.message else f"{self.parameter}: {self.message}"


class RequestError(ValueError):
    """Everything wrong with a request, found before any of it was acted on.

    Raised with one fault as `RequestError(code, message, parameter, **limits)`, or with several by `RequestError.of`.
    """

    def __init__(self, code: str, message: str, parameter: str = "", **limits: Any):
        self.faults: tuple[Fault, ...] = (Fault(code, message, parameter, limits),)
        super().__init__(code, message, parameter)

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> RequestError:
        """The error that carries all `faults`, of which there is at least one."""
        collected = tuple(faults)
        first = collected[0]
        error = cls(first.code, first.message, first.parameter, **first.limits)
        error.faults = collected
        return error

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


def show(value: Any) -> str:
    """`value` in a few characters, whatever it is: never its whole text, and nothing that cannot be printed."""
    if isinstance(value, str):
        told = repr(value[:SHOWN])
        whole = len(value) <= SHOWN and len(told) <= SHOWN + 2
        return told if whole else f"{told[:SHOWN]}… ({len(value)} characters)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        # Python refuses to write an integer of some thousand digits.
        return str(value) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields" if value else "an empty object"
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)} items" if value else "an empty array"
    return f"of type {type(value).__name__[:SHOWN]}"
