"""Graphs in the form in which ComfyUI's editor saves them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.starter.workflow import is_widget, specs

COLUMN, GAP = 380, 40
TOP = 60
ROW, HEADER, TEXT = 26, 40, 170
NOTE_SIZE = (COLUMN, 200)
# The layout of ComfyUI 0.3.75's frontend.
FRONTEND = {"workflowRendererVersion": "LG", "frontendVersion": "1.32.9"}
NAMESPACE = uuid.UUID("5d3c0a11-8f1e-4d2c-9a43-0b7a54c3e1f0")


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
    given: dict[str, Any]
    column: int

    def __getitem__(self, slot: int) -> Output:
        return Output(self.number, slot)


@dataclass
class Graph:
    """A graph of the nodes that a host has; `object_info` is what the host says of them.

    Nodes stand in columns, each to the right of all that it takes from, in the order in which they were added.
    """

    object_info: Mapping[str, Any]
    nodes: list[Node] = field(default_factory=list)
    note: str = ""

    def add(self, kind: str, title: str | None = None, **given: Any) -> Node:
        """A node; `given` are its inputs by name: an `Output` is a link, all else a widget's value."""
        known = specs(self.object_info[kind])
        unknown = set(given) - set(known)
        if unknown:
            raise ValueError(f"{kind} has no inputs {sorted(unknown)}")
        before = [self.nodes[value.node - 1].column for value in given.values() if isinstance(value, Output)]
        node = Node(len(self.nodes) + 1, kind, title, given, max(before, default=-1) + 1)
        self.nodes.append(node)
        return node

    def saved(self, name: str) -> dict[str, Any]:
        """The workflow as the editor saves it; the same name has the same id every time."""
        links: list[list[Any]] = []
        nodes = [self._node(node, links) for node in self.nodes]
        for node in nodes:
            for slot, output in enumerate(node["outputs"]):
                output["links"] = [link[0] for link in links if link[1:3] == [node["id"], slot]] or None
        if self.note:
            nodes.append(self._note(len(nodes) + 1))
        self._place(nodes)
        return {
            "id": str(uuid.uuid5(NAMESPACE, name)),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": {"ds": {"scale": 1, "offset": [0, 0]}, **FRONTEND},
            "version": 0.4,
        }

    def _node(self, node: Node, links: list[list[Any]]) -> dict[str, Any]:
        info = self.object_info[node.kind]
        sockets, values = [], []
        for name, (kind, options) in specs(info).items():
            value = node.given.get(name)
            if is_widget(kind, options):
                values.append(_first(kind, options) if value is None else value)
                if options.get("control_after_generate"):
                    values.append("fixed")
                continue
            socket = {"name": name, "type": kind, "link": None}
            if isinstance(value, Output):
                links.append([len(links) + 1, value.node, value.slot, node.number, len(sockets), kind])
                socket["link"] = len(links)
            sockets.append(socket)
        outputs = [
            {"name": name, "type": kind, "links": None}
            for name, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        return {
            "id": node.number,
            "type": node.kind,
            "pos": [0, 0],
            "size": list(self._size(node)),
            "flags": {},
            "order": node.number - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": outputs,
            **({"title": node.title} if node.title else {}),
            "properties": {"Node name for S&R": node.kind},
            "widgets_values": values,
        }

    def _note(self, number: int) -> dict[str, Any]:
        return {
            "id": number,
            "type": "MarkdownNote",
            "pos": [0, 0],
            "size": list(NOTE_SIZE),
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "About",
            "properties": {},
            "widgets_values": [self.note],
            "color": "#432",
            "bgcolor": "#653",
        }

    def _size(self, node: Node) -> tuple[int, int]:
        height = HEADER
        sockets = 0
        for _, (kind, options) in specs(self.object_info[node.kind]).items():
            if not is_widget(kind, options):
                sockets += 1
            elif options.get("multiline"):
                height += TEXT
            else:
                height += ROW * (2 if options.get("control_after_generate") else 1)
        height += ROW * max(sockets, len(self.object_info[node.kind]["output"]))
        shows_pictures = self.object_info[node.kind].get("output_node") and node.kind != "PreviewAny"
        return COLUMN, height + (COLUMN if shows_pictures else TEXT if node.kind == "PreviewAny" else 0)

    def _place(self, nodes: list[dict[str, Any]]) -> None:
        bottoms: dict[int, int] = {}
        for node in nodes:
            column = self.nodes[node["id"] - 1].column if node["id"] <= len(self.nodes) else 0
            node["pos"] = [GAP + column * (COLUMN + 2 * GAP), bottoms.get(column, TOP)]
            bottoms[column] = node["pos"][1] + node["size"][1] + 2 * GAP


def _first(kind: Any, options: Mapping[str, Any]) -> Any:
    """A new widget's value: its default, or the first of its choices."""
    choices = kind if isinstance(kind, list) else options.get("options") or [None]
    return options.get("default", choices[0])
