"""Graphs in the form in which ComfyUI's editor saves them: workflows, and blueprints of subgraphs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.starter.workflow import is_widget, specs

from .layout import ADD_ONS, COLUMN, SECTIONS, arrange, size

# The layout of ComfyUI 0.3.75's frontend.
FRONTEND = {"workflowRendererVersion": "LG", "frontendVersion": "1.32.9"}
NAMESPACE = uuid.UUID("5d3c0a11-8f1e-4d2c-9a43-0b7a54c3e1f0")
# Of the library's blueprints, in newer frontends.
CATEGORY = "SD3 Local"
# The editor's own numbers for what a subgraph takes and gives.
INPUT, OUTPUT = -10, -20
SLOT, SLOTS_WIDTH, SLOTS_APART = 20, 160, 120
LINE, NOTE_LINE, CHARACTERS = 26, 20, 56


@dataclass(frozen=True)
class Output:
    """One output of a node, for another node's input."""

    node: int
    slot: int


@dataclass
class Node:
    number: int
    kind: str
    title: str | None
    section: str
    given: dict[str, Any]

    def __getitem__(self, slot: int) -> Output:
        return Output(self.number, slot)


@dataclass
class Graph:
    """A graph of the nodes that a host has; `object_info` is what the host says of them.

    `first` is the lowest id of nodes, links and groups. The editor warns where a blueprint that is added has an id that
    the workflow has: workflows begin with 1, and each blueprint elsewhere.
    """

    object_info: Mapping[str, Any]
    nodes: list[Node] = field(default_factory=list)
    note: str = ""
    first: int = 1

    def add(self, kind: str, title: str | None = None, section: str | None = None, **given: Any) -> Node:
        """A node, in the group `section`; `given` are its inputs by name: an `Output` is a link, all else a widget's
        value.
        """
        known = specs(self.object_info[kind])
        if unknown := set(given) - set(known):
            raise ValueError(f"{kind} has no inputs {sorted(unknown)}")
        node = Node(len(self.nodes) + self.first, kind, title, section or SECTIONS.get(kind, ADD_ONS), given)
        self.nodes.append(node)
        return node

    def saved(self, name: str) -> dict[str, Any]:
        """The workflow as the editor saves it; the same name has the same id every time."""
        nodes, links = self._parts()
        if self.note:
            nodes.append(self._note(name, len(nodes) + 1))
        groups = arrange(nodes, links, {node.number: node.section for node in self.nodes})
        return {
            "id": _id(name),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [60, 160]}, **FRONTEND},
            "version": 0.4,
        }

    def blueprint(
        self, name: str, exposed: Mapping[str, tuple[Node, str]], given: Mapping[str, Output], aliases: Sequence[str]
    ) -> dict[str, Any]:
        """A workflow of one node that holds this graph, for the editor's library of nodes; the note describes it.

        `exposed` are its inputs, widgets or sockets of the nodes within, and `given` its outputs, by their labels.
        """
        nodes, links = self._parts()
        groups = arrange(nodes, links, {node.number: node.section for node in self.nodes})
        for number, group in enumerate(groups):
            group["id"] = self.first + number
        by_number = {node["id"]: node for node in nodes}
        inputs, outer_inputs, outputs = [], [], []
        for label, (node, socket) in exposed.items():
            sockets = by_number[node.number]["inputs"]
            slot = next(number for number, each in enumerate(sockets) if each["name"] == socket)
            links.append([len(links) + self.first, INPUT, len(inputs), node.number, slot, sockets[slot]["type"]])
            sockets[slot]["link"] = links[-1][0]
            told = {"name": label, "type": sockets[slot]["type"]}
            inputs.append({"id": _id(f"{name} takes {label}"), **told, "linkIds": [links[-1][0]]})
            widget = {"widget": {"name": label}} if "widget" in sockets[slot] else {}
            outer_inputs.append({**told, **widget, "link": None})
        for label, output in given.items():
            made = by_number[output.node]["outputs"][output.slot]
            links.append([len(links) + self.first, output.node, output.slot, OUTPUT, len(outputs), made["type"]])
            made["links"] = [*(made["links"] or []), links[-1][0]]
            outputs.append(
                {"id": _id(f"{name} gives {label}"), "name": label, "type": made["type"], "linkIds": [links[-1][0]]}
            )
        right = max(group["bounding"][0] + group["bounding"][2] for group in groups)
        definition = {
            "id": _id(f"the subgraph {name}"),
            "version": 1,
            "state": {
                "lastGroupId": groups[-1]["id"],
                "lastNodeId": nodes[-1]["id"],
                "lastLinkId": links[-1][0],
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": name,
            "description": self.note,
            "category": CATEGORY,
            "inputNode": {"id": INPUT, "bounding": _bounding(-SLOTS_WIDTH - SLOTS_APART, len(inputs))},
            "outputNode": {"id": OUTPUT, "bounding": _bounding(right + SLOTS_APART, len(outputs))},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": nodes,
            "groups": groups,
            "links": [
                dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
                for link in links
            ],
            "extra": {"workflowRendererVersion": FRONTEND["workflowRendererVersion"]},
        }
        holder = {
            "id": self.first - 1,
            "type": definition["id"],
            "pos": [0, 0],
            "size": [COLUMN, LINE * (len(inputs) + 2)],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": outer_inputs,
            "outputs": [{"name": each["name"], "type": each["type"], "links": []} for each in outputs],
            "title": name,
            "properties": {},
            "widgets_values": [],
        }
        return {
            "id": _id(name),
            "revision": 0,
            "last_node_id": holder["id"],
            "last_link_id": 0,
            "nodes": [holder],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [definition]},
            "config": {},
            "extra": {"BlueprintDescription": self.note, "BlueprintSearchAliases": list(aliases), **FRONTEND},
            "version": 0.4,
        }

    def _parts(self) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        links: list[list[Any]] = []
        nodes = [self._node(node, links) for node in self.nodes]
        for node in nodes:
            for slot, output in enumerate(node["outputs"]):
                output["links"] = [link[0] for link in links if link[1:3] == [node["id"], slot]] or None
        return nodes, links

    def _node(self, node: Node, links: list[list[Any]]) -> dict[str, Any]:
        info = self.object_info[node.kind]
        sockets, widgets, values = [], [], []
        for name, (kind, options) in specs(info).items():
            value = node.given.get(name)
            if is_widget(kind, options):
                type_ = "COMBO" if isinstance(kind, list) else kind
                widgets.append({"name": name, "type": type_, "widget": {"name": name}, "link": None})
                values.append(_first(kind, options) if value is None else value)
                if options.get("control_after_generate"):
                    values.append("fixed")
                continue
            socket = {"name": name, "type": kind, "link": None}
            if isinstance(value, Output):
                links.append([len(links) + self.first, value.node, value.slot, node.number, len(sockets), kind])
                socket["link"] = links[-1][0]
            sockets.append(socket)
        outputs = [
            {"name": name, "type": kind, "links": None}
            for name, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        return {
            "id": node.number,
            "type": node.kind,
            "pos": [0, 0],
            "size": list(size(node.kind, info)),
            "flags": {},
            "order": node.number - self.first,
            "mode": 0,
            "inputs": sockets + widgets,
            "outputs": outputs,
            **({"title": node.title} if node.title else {}),
            "properties": {"Node name for S&R": node.kind},
            "widgets_values": values,
        }

    def _note(self, name: str, number: int) -> dict[str, Any]:
        text = f"## {name}\n\n{self.note}"
        lines = sum(1 + len(line) // CHARACTERS for line in text.splitlines())
        return {
            "id": number,
            "type": "MarkdownNote",
            "pos": [0, 0],
            "size": [COLUMN, NOTE_LINE * (lines + 2)],
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "About",
            "properties": {},
            "widgets_values": [text],
            "color": "#432",
            "bgcolor": "#653",
        }


def prefix(name: str) -> str:
    """What the files of the pictures of the workflow `name` begin with."""
    return f"sd3-local/{name.removeprefix('SD3 ').replace(' ', '-')}"


def _id(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))


def _bounding(left: float, slots: int) -> list[float]:
    return [left, 0, SLOTS_WIDTH, SLOT * (slots + 2)]


def _first(kind: Any, options: Mapping[str, Any]) -> Any:
    """A new widget's value: its default, or the first of its choices."""
    choices = kind if isinstance(kind, list) else options.get("options") or [None]
    return options.get("default", choices[0])
