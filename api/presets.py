"""Presets: settings of the pack's nodes under a name, as small JSON files that people share.

{"format": "sd3local.preset", "version": 1, "name": "Fast", "description": "…", "thumbnail": "data:…",
 "nodes": [{"node": "SD3LocalSampler", "values": {"steps": 12}}]}

Values go by node id and input name, so a preset outlives inputs that are added; several nodes of a kind, such as a
chain of LoRAs, stand in their order. What is none of today's inputs or values is told, and never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..pipelines.errors import Fault, RequestError, show
from ..pipelines.fields import RequestObject, is_text, spec, specs
from ..pipelines.parse import parse_fields
from ..pipelines.request import ImageInference
from . import pictures
from .graph import CHAINS, CHOICES, OBJECTS, OWN_FIELDS

FORMAT, VERSION = "sd3local.preset", 1
MOST_NODES = 50
LONGEST_NAME, LONGEST_DESCRIPTION, LONGEST_THUMBNAIL = 80, 500, 64 * 1024

EDITOR_ONLY = {"SD3LocalSampler": ("control_after_generate",)}
"""Widgets that the editor adds by itself."""


@dataclass(frozen=True)
class NodeSettings:
    """Some of a node's inputs by name, with their values."""

    node: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """Settings of one or more nodes under a name."""

    name: str
    nodes: tuple[NodeSettings, ...]
    description: str = ""
    thumbnail: str = ""
    """A small picture as data URI."""
    problems: tuple[Fault, ...] = field(default=(), compare=False)
    """What in it is no input or no value of today's nodes; such values are not among `nodes`."""

    def told(self) -> dict[str, Any]:
        """As in a file."""
        nodes = [{"node": one.node, "values": dict(one.values)} for one in self.nodes]
        about = {name: getattr(self, name) for name in ("description", "thumbnail") if getattr(self, name)}
        return {"format": FORMAT, "version": VERSION, "name": self.name, **about, "nodes": nodes}


def inputs() -> dict[str, dict[str, type[RequestObject] | None]]:
    """Node id -> its inputs by name, each with the object of the request that it belongs to, None where it is no part
    of one, such as the choice of a file. Pictures come in by links, and are no settings.
    """
    known: dict[str, dict[str, type[RequestObject] | None]] = {"SD3LocalModel": {"model": None}}
    for node, names in OWN_FIELDS.items():
        known[node] = dict.fromkeys(names, ImageInference)
    for node, cls in (*OBJECTS.values(), *CHAINS.values()):
        known[node] = {name: cls for name, one in specs(cls).items() if one.format != "image"}
    # An accelerator for ComfyUI's own model has the same options.
    known["SD3LocalNativeAccelerator"] = dict(known["SD3LocalAccelerator"])
    for node, choices in CHOICES.items():
        known[node] |= dict.fromkeys(choices)
    return known


def read(given: Any) -> Preset:
    """A preset from a file's JSON, with what is wrong with its values among its problems.

    Raises RequestError for what is no preset at all, with everything that stands against it.
    """
    if not isinstance(given, Mapping) or given.get("format") != FORMAT:
        told = f'This is no preset: it must be an object whose format is "{FORMAT}".'
        raise RequestError("invalidPreset", told, "format")
    faults: list[Fault] = []
    version = given.get("version")
    if type(version) is not int or version < 1:
        faults.append(_fault("version", version, "a whole number from 1"))
    elif version > VERSION:
        told = f"The preset is of version {version}, and this pack knows up to {VERSION}: update the pack."
        faults.append(Fault("unsupportedVersion", told, "version", {"max": VERSION}))
    name, description = given.get("name"), given.get("description", "")
    if not _is_line(name, LONGEST_NAME) or not name.strip():
        faults.append(_fault("name", name, f"a text of 1 to {LONGEST_NAME} characters on one line"))
    if not isinstance(description, str) or not is_text(description) or len(description) > LONGEST_DESCRIPTION:
        faults.append(_fault("description", description, f"a text of up to {LONGEST_DESCRIPTION} characters"))
    faults += _of_thumbnail(given.get("thumbnail", ""))
    nodes = given.get("nodes")
    if not isinstance(nodes, list) or not 1 <= len(nodes) <= MOST_NODES:
        faults.append(_fault("nodes", nodes, f"an array of 1 to {MOST_NODES} nodes"))
        nodes = []
    faults += [
        _fault(f"nodes[{index}]", one, 'an object of "node", a text, and "values", an object')
        for index, one in enumerate(nodes)
        if not is_node(one)
    ]
    if faults:
        raise RequestError.of(faults)
    problems: list[Fault] = []
    settings = [_settings(one["node"], one["values"], f"nodes[{index}]", problems) for index, one in enumerate(nodes)]
    return Preset(name.strip(), tuple(filter(None, settings)), description, given.get("thumbnail", ""), tuple(problems))


def _of_thumbnail(given: Any) -> list[Fault]:
    """What stands against a preset's picture, which browsers show as it is."""
    must = f"a picture as data URI of at most {LONGEST_THUMBNAIL // 1024} KiB"
    if given == "":
        return []
    if not isinstance(given, str) or not given.startswith("data:image/") or len(given) > LONGEST_THUMBNAIL:
        return [_fault("thumbnail", given, must)]
    try:
        pictures.read(pictures.refer(given, "thumbnail").content, "thumbnail")
    except RequestError:
        return [_fault("thumbnail", given, must)]
    return []


def _settings(node: str, values: Mapping[str, Any], path: str, problems: list[Fault]) -> NodeSettings | None:
    known = inputs().get(node)
    if known is None:
        problems.append(Fault("unsupportedNode", f"{path}.node is {show(node)}, which this pack does not have.", path))
        return None
    good = {}
    for name, value in values.items():
        here = f"{path}.values.{name}"
        if name in EDITOR_ONLY.get(node, ()):
            good[name] = value
        elif name not in known:
            problems.append(Fault("unsupportedInput", f"{here}: {node} has no such input, or none any more.", here))
        elif (cls := known[name]) is None:
            if isinstance(value, str) and is_text(value):
                good[name] = value
            else:
                problems.append(_fault(here, value, "a text"))
        elif value == spec(cls, name).unset:
            good[name] = value
        else:
            try:
                parse_fields(cls, {name: value})
                good[name] = value
            except RequestError as error:
                problems += [Fault(one.code, f"{path} {node}: {one}", here, one.limits) for one in error.faults]
    problems += _together(node, known, good, path)
    return NodeSettings(node, good)


def _together(
    node: str, known: Mapping[str, type[RequestObject] | None], values: Mapping[str, Any], path: str
) -> list[Fault]:
    """What is wrong between the values of one node, each of which is good for itself."""
    by_class: dict[type[RequestObject], dict[str, Any]] = {}
    for name, value in values.items():
        cls = known.get(name)
        if cls is not None and value != spec(cls, name).unset:
            by_class.setdefault(cls, {})[name] = value
    faults: list[Fault] = []
    for cls, given in by_class.items():
        try:
            parse_fields(cls, given)
        except RequestError as error:
            faults += [Fault(one.code, f"{path} {node}: {one}", path, one.limits) for one in error.faults]
    return faults


def is_node(given: Any) -> bool:
    """Whether it is an object of a node's id and its values by input."""
    return (
        isinstance(given, Mapping)
        and isinstance(given.get("node"), str)
        and isinstance(given.get("values"), Mapping)
        and all(isinstance(name, str) for name in given["values"])
    )


def _is_line(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def _fault(name: str, value: Any, must: str) -> Fault:
    return Fault("invalidPreset", f"{name} is {show(value)}; it must be {must}.", name)
