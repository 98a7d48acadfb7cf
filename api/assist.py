"""What the editor asks while a person works at nodes: whether values are right, and how long prompts are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from ..host import folders
from ..pipelines.effects import Idle, without_effect
from ..pipelines.errors import Fault, RequestError, show
from ..pipelines.fields import RequestObject, spec
from ..pipelines.parse import parse_fields
from ..pipelines.request import ImageInference
from ..pipelines.text import Tokenizers
from ..pipelines.text.count import T5_TRAINED, count
from ..pipelines.text.tokens import CLIP_LENGTH
from .presets import EDITOR_ONLY, inputs, is_node

MOST_NODES = 500
MOST_TEXTS, LONGEST_TEXT = 4, 20_000

PICTURES = {"SD3LocalInputs": ("seedImage", "maskImage")}
"""Inputs that take a picture and that the values beside them depend on."""


def judged(given: Any) -> dict[str, Any]:
    """What is wrong with the values of nodes, and what has no effect, in the nodes' order.

    `given` is {"nodes": [{"node": id, "values": {input: value}, "linked": [input]}]}; linked inputs have no value of
    their own. A node that is none of this pack's has nothing to be told. Raises RequestError for anything else.
    """
    nodes = given.get("nodes") if isinstance(given, Mapping) else None
    if not isinstance(nodes, list) or len(nodes) > MOST_NODES:
        raise _unreadable("nodes", nodes, f"an array of up to {MOST_NODES} nodes")
    for index, one in enumerate(nodes):
        if not is_node(one) or not isinstance(one.get("linked", []), list):
            raise _unreadable(f"nodes[{index}]", one, 'an object of "node", "values" and "linked"')
    return {"nodes": [_judged(one["node"], one["values"], one.get("linked", ())) for one in nodes]}


def tokens(given: Any) -> dict[str, Any]:
    """The tokens of {"texts": {name: prompt}}, by the same names."""
    texts = given.get("texts") if isinstance(given, Mapping) else None
    if not isinstance(texts, Mapping) or len(texts) > MOST_TEXTS:
        raise _unreadable("texts", texts, f"an object of up to {MOST_TEXTS} texts")
    for text in texts.values():
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            raise _unreadable("texts", text, f"texts of up to {LONGEST_TEXT} characters")
    # A fast tokenizer can be used by one thread at a time.
    with _LOCK:
        counts = {name: asdict(count(_tokenizers(), text)) for name, text in texts.items()}
    return {"counts": counts, "clipLength": CLIP_LENGTH, "t5Length": T5_TRAINED}


_LOCK = threading.Lock()


@cache
def _tokenizers() -> Tokenizers:
    return Tokenizers(folders.tokenizers())


def _judged(node: str, values: Mapping[str, Any], linked: Any) -> dict[str, Any]:
    problems: list[Fault] = []
    idle: list[Idle] = []
    known = inputs().get(node, {})
    parts: dict[type[RequestObject], dict[str, Any]] = {}
    for name, value in values.items():
        if name in linked or name in EDITOR_ONLY.get(node, ()) or name not in known:
            continue
        if (cls := known[name]) is not None:
            parts.setdefault(cls, {})[name] = value
        problems += _missing_file(node, name, value)
    for cls, of_class in parts.items():
        fields = {name: spec(cls, name) for name in of_class}
        given = {name: value for name, value in of_class.items() if value != fields[name].unset}
        pictures: dict[str, Any] = {name: name if name in linked else None for name in PICTURES.get(node, ())}
        if pictures and cls is ImageInference:
            given["inputs"] = {name: value for name, value in pictures.items() if value is not None}
        try:
            parse_fields(cls, given)
        except RequestError as error:
            problems += error.faults
        effective = {name: given.get(name, field.default) for name, field in fields.items()}
        idle += without_effect(cls, effective | ({"inputs": pictures} if pictures else {}))
    idle += _idle_choices(node, values, linked)
    together: dict[str, tuple[str, ...]] = {}
    for parameters, reason in idle:
        together[reason] = (*together.get(reason, ()), *parameters)
    return {
        "problems": [{"parameter": fault.parameter, "message": str(fault)} for fault in problems],
        "idle": [Idle(parameters, reason)._asdict() for reason, parameters in together.items()],
    }


def _idle_choices(node: str, values: Mapping[str, Any], linked: Any) -> list[Idle]:
    """Choices that are no part of a request, and have no effect."""
    if node == "SD3LocalIPAdapter" and "clipVision" in linked:
        return [Idle(("encoder",), "The clip vision that is connected takes its place.")]
    if node == "SD3LocalSafety" and values.get("checkContent") is False and "checkContent" not in linked:
        return [Idle(("classifier",), "Nothing is checked while checkContent is off.")]
    if node == "SD3LocalLora" and values.get("model") == "none" and "model" not in linked:
        return [Idle(("weight", "transformer"), "Without a LoRA of its own the node only hands on earlier ones.")]
    return []


def _missing_file(node: str, name: str, value: Any) -> tuple[Fault, ...]:
    """What a choice of a file that is not there is told: the folder it belongs into."""
    find = _files().get(node, {}).get(name)
    try:
        if find is not None:
            find(value)
    except RequestError as error:
        return error.faults
    return ()


@cache
def _files() -> dict[str, dict[str, Callable[[Any], Any]]]:
    """Node id -> input -> what finds a chosen file or raises RequestError."""
    from ..host import optional_models

    def add_on(folder: str, parameter: str = "model") -> Callable[[Any], Any]:
        return lambda value: folders.add_on_path(value, folder, parameter)

    def own(folder: str, parameter: str) -> Callable[[Any], Any]:
        return lambda value: folders.file_path(value, folder, parameter)

    def beside(choice: str, find: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: None if value == choice else find(value)

    encoders = {name: own("text_encoders", name) for name in ("textEncoder1", "textEncoder2", "textEncoder3")}
    return {
        "SD3LocalModel": {"model": folders.model_path, "vae": own("vae", "vae"), **encoders},
        "SD3LocalLora": {"model": beside("none", add_on("loras"))},
        "SD3LocalControlNet": {"model": add_on("controlnet")},
        "SD3LocalIPAdapter": {
            "model": add_on("ipadapter"),
            "encoder": beside("auto", add_on("clip_vision", "encoder")),
        },
        "SD3LocalFaceFix": {"detector": beside("auto", optional_models.detector_path)},
        "SD3LocalSafety": {"classifier": beside("auto", optional_models.classifier_path)},
    }


def _unreadable(name: str, value: Any, must: str) -> RequestError:
    return RequestError("invalidRequest", f"{name} is {show(value)}; it must be {must}.", name)
