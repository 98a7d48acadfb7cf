"""A request as a graph of the pack's nodes, and such a graph as a request again.

A graph is what ComfyUI's /prompt takes: node id -> {"class_type", "inputs"}, where an input is a value or a link
[node id, output]. There is no other way to run a request than as its graph.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..pipelines.errors import Fault, RequestError, show
from ..pipelines.fields import FieldSpec, RequestObject, spec, specs
from ..pipelines.parse import dump, parse
from ..pipelines.request import (
    AcceleratorOptions,
    ControlNet,
    ImageInference,
    IPAdapter,
    Lora,
    Outpaint,
    Safety,
    Ultralytics,
)
from ..pipelines.scheduler_names import DEFAULT_SCHEDULER

Node = dict[str, Any]
Graph = dict[str, Node]
Link = list[Any]

OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "SD3LocalPrompt": ("positivePrompt", "negativePrompt", "clipSkip"),
    "SD3LocalInputs": ("strength", "maskMargin"),
    "SD3LocalSampler": ("width", "height", "seed", "steps", "scheduler", "CFGScale", "numberResults"),
    "SD3LocalDelivery": (
        "taskUUID",
        "outputType",
        "outputFormat",
        "outputQuality",
        "uploadEndpoint",
        "webhookURL",
        "ttl",
        "includeCost",
        "deliveryMethod",
    ),
}
"""The nodes that hold fields of the request itself."""

OBJECTS: dict[str, tuple[str, type[RequestObject]]] = {
    "outpaint": ("SD3LocalOutpaint", Outpaint),
    "acceleratorOptions": ("SD3LocalAccelerator", AcceleratorOptions),
    "ultralytics": ("SD3LocalFaceFix", Ultralytics),
    "safety": ("SD3LocalSafety", Safety),
}
CHAINS: dict[str, tuple[str, type[RequestObject]]] = {
    "lora": ("SD3LocalLora", Lora),
    "controlNet": ("SD3LocalControlNet", ControlNet),
    "ipAdapters": ("SD3LocalIPAdapter", IPAdapter),
}

CHOICES: dict[str, dict[str, Any]] = {
    "SD3LocalModel": {
        "vae": "from model",
        "textEncoder1": "from model",
        "textEncoder2": "from model",
        "textEncoder3": "from model",
        "dtype": "auto",
    },
    "SD3LocalIPAdapter": {"encoder": "auto"},
    "SD3LocalFaceFix": {"detector": "auto"},
    "SD3LocalSafety": {"classifier": "auto"},
}
"""What nodes choose beside the request, as it stands in their widgets."""


def to_graph(request: ImageInference, choices: Mapping[str, Mapping[str, Any]] = CHOICES) -> Graph:
    """The graph of a request; `choices` are inputs that the request does not name, by the class of their node."""
    return _Builder(dump(request), choices).graph


class _Builder:
    """Nodes in the order in which they are made, numbered from 1."""

    def __init__(self, wire: Mapping[str, Any], choices: Mapping[str, Mapping[str, Any]]):
        self.graph: Graph = {}
        self._choices = choices
        sampler: dict[str, Any] = {
            "model": self._add("SD3LocalModel", {"model": wire["model"]}),
            "prompt": self._add_own("SD3LocalPrompt", wire),
        }
        inputs = wire.get("inputs", {})
        own = [spec(ImageInference, name) for name in OWN_FIELDS["SD3LocalInputs"]]
        # As read back from a graph, where a value that is the default is as good as none.
        if inputs or any(_value(field, wire) != field.unset for field in own):
            sampler["inputs"] = self._add_own("SD3LocalInputs", wire, self._pictures(inputs))
        for name, (node, cls) in OBJECTS.items():
            if name in wire:
                sampler[name] = self._add(node, _values(cls, wire[name]))
        for name, (node, cls) in CHAINS.items():
            for item in wire.get(name, ()):
                earlier = {name: sampler[name]} if name in sampler else {}
                sampler[name] = self._add(node, {**_values(cls, item), **self._guides(item), **earlier})
        result = self._add_own("SD3LocalSampler", wire, sampler, output=2)
        self._add_own("SD3LocalDelivery", wire, {"result": result})

    def _add(self, node: str, inputs: Mapping[str, Any], output: int = 0) -> Link:
        key = str(len(self.graph) + 1)
        self.graph[key] = {"class_type": node, "inputs": {**inputs, **self._choices.get(node, {})}}
        return [key, output]

    def _add_own(self, node: str, wire: Mapping[str, Any], links: Mapping[str, Any] = {}, output: int = 0) -> Link:
        values = {name: _value(spec(ImageInference, name), wire) for name in OWN_FIELDS[node]}
        return self._add(node, {**values, **links}, output)

    def _pictures(self, inputs: Mapping[str, str]) -> dict[str, Link]:
        # A mask is a picture's brightness, which is the second output.
        outputs = {"seedImage": 0, "maskImage": 1}
        return {name: self._picture(inputs[name], output) for name, output in outputs.items() if name in inputs}

    def _guides(self, item: Mapping[str, Any]) -> dict[str, Link]:
        if "guideImage" in item:
            return {"guideImage": self._picture(item["guideImage"])}
        link: Link | None = None
        for text in item.get("guideImages", ()):
            link = self._picture(text, earlier=link)
        return {} if link is None else {"guideImages": link}

    def _picture(self, text: str, output: int = 0, earlier: Link | None = None) -> Link:
        return self._add(
            "SD3LocalPicture", {"picture": text, **({} if earlier is None else {"pictures": earlier})}, output
        )


def _values(cls: type[RequestObject], wire: Mapping[str, Any]) -> dict[str, Any]:
    """The widgets of an object's node; its pictures come in by links."""
    return {name: _value(field, wire) for name, field in specs(cls).items() if field.format != "image"}


def _value(field: FieldSpec, wire: Mapping[str, Any]) -> Any:
    if field.alias in wire:
        return wire[field.alias]
    return DEFAULT_SCHEDULER if field.alias == "scheduler" else field.unset


def before(graph: Mapping[str, Mapping[str, Any]], end: str) -> dict[str, Any]:
    """`end` and all that it comes from."""
    needed, waiting = set(), [end]
    while waiting:
        key = waiting.pop()
        if key in needed or key not in graph:
            continue
        needed.add(key)
        inputs = graph[key].get("inputs")
        links = inputs.values() if isinstance(inputs, Mapping) else ()
        waiting += [str(link[0]) for link in links if isinstance(link, list) and link]
    return {key: node for key, node in graph.items() if key in needed}


@dataclass(frozen=True)
class _Place:
    """A node on the way from the end of a graph to its beginning."""

    key: str
    node: Node


def to_request(
    graph: Mapping[str, Any], picture: Callable[[Node, int], str | None] = lambda node, output: None
) -> ImageInference:
    """The request that a graph of the pack's nodes stands for.

    Values that are a field's own default are left out; where the graph names no task, it gets a new UUID. `picture` may
    tell what an output of another pack's node, a picture or a mask, is for the API. Raises RequestError where the graph
    is none, or has what a request can't say.
    """
    return _Reader(graph, picture).request()


class _Reader:
    def __init__(self, graph: Mapping[str, Any], picture: Callable[[Node, int], str | None]):
        self._graph = graph
        self._foreign = picture
        self._faults: list[Fault] = []

    def request(self) -> ImageInference:
        if not isinstance(self._graph, Mapping) or not all(
            isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping) for node in self._graph.values()
        ):
            raise RequestError("invalidGraph", "The graph must be an object of nodes in ComfyUI's API format.", "graph")
        delivery = self._only("SD3LocalDelivery")
        wire: dict[str, Any] = {"taskType": "imageInference"}
        # A graph may leave the name of its task to the run, where a request has to have one.
        wire |= self._own(delivery)
        wire["taskUUID"] = wire.get("taskUUID") or str(uuid.uuid4())
        sampler = self._linked(delivery, "result", "SD3LocalSampler")
        if sampler is not None:
            wire |= self._own(sampler) | self._of_sampler(sampler)
        if self._faults:
            raise RequestError.of(self._faults)
        return parse(wire)

    def _of_sampler(self, sampler: _Place) -> dict[str, Any]:
        wire: dict[str, Any] = {}
        model = self._linked(sampler, "model", "SD3LocalModel")
        if model is not None:
            wire["model"] = self._value(model, "model")
        prompt = self._linked(sampler, "prompt", "SD3LocalPrompt")
        if prompt is not None:
            wire |= self._own(prompt)
        if (start := self._linked(sampler, "inputs", "SD3LocalInputs", optional=True)) is not None:
            wire |= self._own(start)
            pictures = {name: self._picture(start, name) for name in ("seedImage", "maskImage")}
            wire["inputs"] = {name: text for name, text in pictures.items() if text is not None}
        for name, (node, cls) in OBJECTS.items():
            if (place := self._linked(sampler, name, node, optional=True)) is not None:
                wire[name] = self._object(place, cls)
        for name, (node, cls) in CHAINS.items():
            chain: dict[str, _Place] = {}
            place = self._linked(sampler, name, node, optional=True)
            while place is not None and place.key not in chain:
                chain[place.key] = place
                place = self._linked(place, name, node, optional=True)
            if chain:
                wire[name] = [self._object(one, cls) for one in reversed(chain.values())]
        return wire

    def _object(self, place: _Place, cls: type[RequestObject]) -> dict[str, Any]:
        given = self._set(cls, place, [name for name, field in specs(cls).items() if field.format != "image"])
        if cls is ControlNet:
            given["guideImage"] = self._picture(place, "guideImage")
        if cls is IPAdapter:
            given["guideImages"] = self._pictures(place)
        return {name: value for name, value in given.items() if value is not None}

    def _own(self, place: _Place) -> dict[str, Any]:
        given = self._set(ImageInference, place, OWN_FIELDS[place.node["class_type"]])
        if given.get("scheduler") == DEFAULT_SCHEDULER:
            del given["scheduler"]
        return given

    def _set(self, cls: type[RequestObject], place: _Place, names: Any) -> dict[str, Any]:
        fields = [spec(cls, name) for name in names]
        given = {
            field.alias: self._value(place, field.alias) for field in fields if field.alias in place.node["inputs"]
        }
        return {field.alias: given[field.alias] for field in fields if not _is_unset(field, given)}

    def _value(self, place: _Place, name: str) -> Any:
        value = place.node["inputs"].get(name)
        if not _is_link(value):
            return value
        source = self._graph.get(str(value[0]))
        # ComfyUI's own nodes that hold one value.
        if source is not None and str(source.get("class_type", "")).startswith("Primitive"):
            return source["inputs"].get("value")
        self._fault(place, name, "comes from another node, so what it will be is not known before the graph is run")
        return None

    def _picture(self, place: _Place, name: str) -> str | None:
        texts = self._texts(place, name)
        if len(texts) > 1:
            self._fault(place, name, f"has {len(texts)} pictures, and the API takes one")
        return texts[0] if texts else None

    def _pictures(self, place: _Place) -> list[str]:
        return self._texts(place, "guideImages")

    def _texts(self, place: _Place, name: str) -> list[str]:
        """What the pictures that come in by `name` are called, the first one first."""
        texts: list[str] = []
        seen: set[str] = set()
        link = place.node["inputs"].get(name)
        while _is_link(link) and str(link[0]) in self._graph and str(link[0]) not in seen:
            seen.add(str(link[0]))
            node = self._graph[str(link[0])]
            if node.get("class_type") != "SD3LocalPicture":
                text = self._foreign(node, link[1])
                if text is None:
                    told = f"comes from {show(node.get('class_type'))}; a request has pictures from SD3 Picture only"
                    self._fault(place, name, told)
                    return []
                return [text, *texts[::-1]]
            texts.append(self._value(_Place(str(link[0]), node), "picture"))
            link = node["inputs"].get("pictures")
        return texts[::-1]

    def _only(self, name: str) -> _Place:
        found = [_Place(key, node) for key, node in self._graph.items() if node.get("class_type") == name]
        if len(found) != 1:
            told = f"The graph has {len(found)} nodes {name}; a request is a graph with one."
            raise RequestError("invalidGraph", told, "graph")
        return found[0]

    def _linked(self, place: _Place, name: str, expected: str, *, optional: bool = False) -> _Place | None:
        """The node that the input `name` comes from."""
        link = place.node["inputs"].get(name)
        if link is None and optional:
            return None
        key = str(link[0]) if _is_link(link) else ""
        node = self._graph.get(key)
        if node is None or node.get("class_type") != expected:
            self._fault(place, name, f"must come from {expected}")
            return None
        return _Place(key, node)

    def _fault(self, place: _Place, name: str, told: str) -> None:
        where = f"{place.node['class_type']} {place.key}"
        self._faults.append(Fault("invalidGraph", f"{name} of {where} {told}.", name))


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int))


def _is_unset(field: FieldSpec, given: Mapping[str, Any]) -> bool:
    value = given.get(field.alias)
    return value is None or (not field.required and value == field.unset)
