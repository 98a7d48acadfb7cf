"""Where a graph's nodes stand: in titled groups from left to right, each node to the right of what it takes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.starter.workflow import is_widget, specs

PROMPT, ADD_ONS, SAMPLING, RESULT = "Model and prompt", "Add-ons", "Sampling", "Result"
SECTIONS = {
    "SD3LocalModel": PROMPT,
    "SD3LocalPrompt": PROMPT,
    "SD3LocalSampler": SAMPLING,
    "PreviewImage": RESULT,
    "SaveImage": RESULT,
    "PreviewAny": RESULT,
    "SD3LocalDelivery": RESULT,
}
"""The group of each kind of node whose example says nothing else; all others are add-ons."""

LAST = (SAMPLING, RESULT)
COLORS = {PROMPT: "#3f789e", ADD_ONS: "#8A8", SAMPLING: "#a1309b", RESULT: "#b58b2a"}
OTHER_COLOR = "#b06634"

COLUMN, GAP, APART = 380, 80, 80
# A group's title and a node's title bar are above what they belong to.
PADDING, ABOVE = 30, 90
TALL = 1200
ROW, HEADER, TEXT = 26, 40, 170
SHOWN = {"SD3LocalOutpaint": 170, "SD3LocalSampler": 220}
"""The height of what the pack's editor shows below the widgets: the frame to outpaint in, what came of a run."""


def size(kind: str, info: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height that hold a node's widgets and sockets, and what it shows."""
    height, sockets = HEADER, 0
    for _, (type_, options) in specs(info).items():
        if not is_widget(type_, options):
            sockets += 1
        elif options.get("multiline"):
            height += TEXT
        else:
            height += ROW * (2 if options.get("control_after_generate") else 1)
    height += ROW * max(sockets, len(info["output"]))
    height += SHOWN.get(kind, 0)
    if kind == "PreviewAny":
        return COLUMN, height + TEXT
    return COLUMN, height + (COLUMN if info.get("output_node") else 0)


def arrange(nodes: Sequence[dict[str, Any]], links: Sequence[Sequence[Any]], sections: Mapping[int, str]) -> list[Any]:
    """Gives each node its place, and returns the groups in the form in which the editor saves them.

    `sections` are the titles of the groups by node id; nodes without one stand left of all groups.
    """
    left = 0
    outside = [node for node in nodes if node["id"] not in sections]
    if outside:
        left = _stack([outside], left) + APART
    titles = list(dict.fromkeys(sections.values()))
    titles.sort(key=lambda title: (title in LAST, LAST.index(title) if title in LAST else title != PROMPT))
    groups = []
    for title in titles:
        members = [node for node in nodes if sections.get(node["id"]) == title]
        right = _stack(_columns(members, links), left + PADDING)
        bottom = max(node["pos"][1] + node["size"][1] for node in members)
        groups.append(
            {
                "id": len(groups) + 1,
                "title": title,
                "bounding": [left, -ABOVE, right - left + PADDING, bottom + ABOVE + PADDING],
                "color": COLORS.get(title, OTHER_COLOR),
                "font_size": 24,
                "flags": {},
            }
        )
        left = right + PADDING + APART
    return groups


def _columns(nodes: Sequence[dict[str, Any]], links: Sequence[Sequence[Any]]) -> list[list[dict[str, Any]]]:
    """Nodes by how many others of their group lead to them; a column that would be too tall goes on beside itself."""
    depth = {node["id"]: 0 for node in nodes}
    for node in nodes:
        before = [depth[link[1]] for link in links if link[3] == node["id"] and link[1] in depth]
        depth[node["id"]] = max(before, default=-1) + 1
    columns: list[list[dict[str, Any]]] = []
    for level in sorted(set(depth.values())):
        columns.append([])
        for node in nodes:
            if depth[node["id"]] != level:
                continue
            if columns[-1] and sum(each["size"][1] + GAP for each in columns[-1]) + node["size"][1] > TALL:
                columns.append([])
            columns[-1].append(node)
    return columns


def _stack(columns: Sequence[Sequence[dict[str, Any]]], left: int) -> int:
    """Places the columns from `left` on; returns where the last one ends."""
    for number, column in enumerate(columns):
        top = 0
        for node in column:
            node["pos"] = [left + number * (COLUMN + GAP), top]
            top += node["size"][1] + GAP
    return left + len(columns) * (COLUMN + GAP) - GAP
