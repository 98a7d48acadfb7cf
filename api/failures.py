"""Why a run failed, read from what ComfyUI says of it, as the API's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..pipelines.errors import Fault
from ..pipelines.fields import RequestObject, specs
from ..pipelines.request import ImageInference
from ..pipelines.rules import code, field_of

CANCELLED = Fault("taskCancelled", "The task was cancelled in ComfyUI.", "taskUUID")
LOST = Fault("inferenceError", "ComfyUI ended the run without a result; its log says more.", "taskUUID")
CRASHED = Fault(
    "inferenceError", "ComfyUI itself ended several times while it ran this task, so it is not tried again.", "taskUUID"
)


def _names(cls: type[RequestObject]) -> Iterator[str]:
    """The names of a request's fields, and of those of the objects in it."""
    for name, field in specs(cls).items():
        yield name
        if field.model is not None:
            yield from _names(field.model)


# The longest first: a name may begin with another one.
_PART = rf"(?:{'|'.join(sorted({*_names(ImageInference)}, key=len, reverse=True))})(?:\[\d+\])?"
_PARAMETER = re.compile(rf"(?<![\w.]){_PART}(?:\.{_PART})*(?!\w)")


def of_event(kind: str, data: Mapping[str, Any]) -> tuple[Fault, ...]:
    """The faults in one of ComfyUI's messages about a prompt that did not succeed."""
    if kind == "execution_interrupted":
        return (CANCELLED,)
    message, name = str(data.get("exception_message", "")), str(data.get("exception_type", ""))
    if name.rpartition(".")[2] == "RequestError":
        return of_text(message)
    node = data.get("node_type") or "the run"
    if "OutOfMemory" in name:
        told = f"The memory was too small for {node}: ask for a smaller picture, or free memory in ComfyUI."
        return (Fault("inferenceError", told, "width"),)
    told = f"{node} failed ({name.rpartition('.')[2] or 'unknown'}); ComfyUI's log says more."
    return (Fault("inferenceError", told, "taskUUID"),)


def of_refusal(body: Any) -> tuple[Fault, ...]:
    """The faults in ComfyUI's refusal to queue a graph: values beyond what widgets take, where the API has no bound."""
    nodes = body.get("node_errors") if isinstance(body, Mapping) else None
    faults = []
    for node in nodes.values() if isinstance(nodes, Mapping) else ():
        for error in node.get("errors", ()):
            parameter = str((error.get("extra_info") or {}).get("input_name") or "model")
            told = f"{parameter}: {error.get('message', 'not accepted')}."
            faults.append(Fault(code("invalid", parameter), told, parameter))
    return tuple(faults) or (LOST,)


def of_text(text: str) -> tuple[Fault, ...]:
    """The faults that a node told, a line each. Such a line names its parameter (`Fault.__str__`)."""
    faults: list[Fault] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _PARAMETER.search(line)
        if found is None and faults:
            last = faults.pop()
            faults.append(Fault(last.code, f"{last.message} {line}", last.parameter))
        else:
            parameter = found[0] if found else "model"
            faults.append(Fault(code("invalid", field_of(parameter)), line, parameter))
    return tuple(faults) or (LOST,)
