"""Turns a workflow as the editor saves it into the prompt that ComfyUI runs, as the editor does on Run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkout import StarterError

MUTED, BYPASSED = 2, 4
NOTES = {"Note", "MarkdownNote"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEED_NAMES = {"seed", "noise_seed"}
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}
UPLOADS = ("image_upload", "video_upload", "audio_upload")


def to_prompt(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt of `workflow`, by what the host says of its nodes in `/object_info`.

    Raises StarterError for a node that the host does not have (subgraphs are among these) and for links in a ring.
    """
    graph = _Graph(workflow)
    prompt: dict[str, Any] = {}
    for key, node in graph.nodes.items():
        if node.get("mode") in (MUTED, BYPASSED) or graph.is_virtual(node):
            continue
        info = object_info.get(node["type"])
        if info is None:
            raise StarterError(f"The workflow uses the node {node['type']!r}, which this ComfyUI does not have.")
        inputs = widget_values(node, info)
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                source = graph.source(slot["link"])
                if source is not None:
                    inputs[slot["name"]] = source
                elif slot["name"] not in widget_names(info):
                    inputs.pop(slot["name"], None)
        prompt[key] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": node.get("title") or info.get("display_name") or node["type"]},
        }
    return prompt


def specs(info: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """A node's inputs in the editor's order: name -> (type, options)."""
    found = {}
    for group in ("required", "optional"):
        declared = (info.get("input") or {}).get(group) or {}
        for name in (info.get("input_order") or {}).get(group) or declared:
            kind, *options = declared[name]
            found[name] = (kind, options[0] if options and isinstance(options[0], dict) else {})
    return found


def is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    """Whether the editor draws a widget for the input; a list is an old-style combo."""
    return (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput")


def widget_names(info: Mapping[str, Any]) -> list[str]:
    return [name for name, (kind, options) in specs(info).items() if is_widget(kind, options)]


def widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a node's widgets by name; those that the file does not hold get their defaults."""
    saved = node.get("widgets_values")
    by_name = {name: spec for name, spec in specs(info).items() if is_widget(*spec)}
    values = {name: options["default"] for name, (_, options) in by_name.items() if "default" in options}
    if isinstance(saved, Mapping):
        return values | {name: saved[name] for name in by_name if name in saved}
    left = list(saved or [])
    for name, (kind, options) in by_name.items():
        if not left:
            break
        values[name] = left.pop(0)
        # Two saved widgets are the editor's own: what becomes of a seed after a run, and upload buttons.
        seed = options.get("control_after_generate") or (kind == "INT" and name in SEED_NAMES)
        upload = any(options.get(key) for key in UPLOADS)
        if left and ((seed and left[0] in AFTER_GENERATE) or (upload and left[0] == "image")):
            left.pop(0)
    return values


class _Graph:
    def __init__(self, workflow: Mapping[str, Any]):
        try:
            self.nodes: dict[str, Mapping[str, Any]] = {str(node["id"]): node for node in workflow["nodes"]}
            self.links = {link: origin for link, origin in map(_link, workflow.get("links") or [])}
        except (KeyError, TypeError, ValueError) as error:
            raise StarterError("This is no workflow as the editor saves it: `nodes` or `links` are wrong.") from error

    def is_virtual(self, node: Mapping[str, Any]) -> bool:
        return node["type"] in NOTES or node["type"] in {"Reroute", "PrimitiveNode"}

    def source(self, link: int, seen: frozenset[int] = frozenset()) -> Any:
        """What a link brings: `[node id, slot]`, a primitive's value, or None where the chain ends in nothing."""
        if link in seen:
            raise StarterError("The workflow's links form a ring.")
        key, slot = self.links.get(link, ("", 0))
        node = self.nodes.get(key)
        if node is None or node.get("mode") == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return (node.get("widgets_values") or [None])[0]
        if node["type"] == "Reroute":
            upstream = node["inputs"][0].get("link")
        elif node.get("mode") == BYPASSED:
            upstream = _passed_through(node, slot)
        else:
            return [key, slot]
        return None if upstream is None else self.source(upstream, seen | {link})


def _link(link: Any) -> tuple[int, tuple[str, int]]:
    """(link id, (node id, slot) it comes from), from the list form or the object form."""
    if isinstance(link, Mapping):
        return link["id"], (str(link["origin_id"]), link["origin_slot"])
    number, origin, slot = link[:3]
    return number, (str(origin), slot)


def _passed_through(node: Mapping[str, Any], slot: int) -> int | None:
    """The link that stands for a bypassed node's output `slot`: the same slot's, else the first of its type."""
    kind = node["outputs"][slot]["type"]
    inputs = node.get("inputs") or []
    for candidate in [*inputs[slot : slot + 1], *inputs]:
        if candidate.get("type") == kind:
            return candidate.get("link")
    return None
